"""What people take home of a model: plain Keras files that need nothing of this package."""

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from rotnet_keras.engine import keras
from rotnet_keras.errors import DataError, RotnetError
from rotnet_keras.models.fused_batch_norm import with_stock_layers
from rotnet_keras.runs.zoo import find_pretrained

layers = keras.layers

# What Keras calls the formats that a model is converted to, and how their names have to end.
FORMATS = {"savedmodel": ("tf_saved_model", ""), "onnx": ("onnx", ".onnx"), "litert": ("litert", ".tflite")}


def save_model(model: keras.Model, path: Path) -> None:
    """Write a `.keras` file, whole or not at all."""
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_name(f".{path.stem}.tmp.keras")
    model.save(temporary)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def load_backbone(path: Path) -> keras.Model:
    """Read a model that others go on with.

    Raises:
        DataError: the file is none, or loading it could run code of its own.
    """
    try:
        return keras.models.load_model(path, compile=False)
    except Exception as error:  # Keras raises many types for files that are not its own.
        raise DataError(f"{path}: not a Keras model that can be loaded safely: {error}") from None


def load(name: str) -> keras.Model:
    """The backbone of a pretrained network that comes with the package, as `rotnet-keras weights` lists them.

    A plain functional model of Keras's own layers, to be read at any of them, fine-tuned or saved. It takes raw pixels,
    0 to 255, of the size that its card tells.

    Raises:
        RotnetError: there is none of this name; the message has the nearest.
    """
    return load_backbone(find_pretrained(name).backbone)


def convert(source: Path, to: str, target: Path) -> None:
    """Write an exported model in another format, whole or not at all.

    Args:
        source: a `.keras` file.
        to: "savedmodel" (a folder), "onnx" or "litert" (a file).
        target: what to write; must not exist.

    Raises:
        RotnetError: the target exists, or a package that the format needs is missing.
    """
    if target.exists():
        raise RotnetError(f"{target} exists already; remove it or choose another place with --output")
    model = keras.models.load_model(source, compile=False)
    model(np.zeros((1, *model.input.shape[1:]), np.float32))  # Keras exports to ONNX only what was called.
    # In a folder of its own until it is whole.
    with TemporaryDirectory(prefix=".export-", dir=target.absolute().parent) as folder:
        name, suffix = FORMATS[to]
        written = Path(folder) / f"model{suffix}"
        try:
            model.export(written, format=name, verbose=False)
        except ImportError as error:
            needed = "pip install 'rotnet-keras[onnx]'"
            raise RotnetError(f"the format {to} needs more packages: {needed} ({error})") from None
        written.rename(target)


def with_softmax(backbone: keras.Model, head: keras.Model, name: str) -> keras.Model:
    """One flat functional model from raw pixels to probabilities (N, K), of stock layers only.

    The parts are rebuilt and given the weights, so that the export shares nothing with the model in
    training and is float32 whatever the training's precision.
    """
    return _with(layers.Softmax(name="probabilities"), backbone, head, name)


def with_sigmoid(backbone: keras.Model, head: keras.Model, name: str) -> keras.Model:
    """The same with a probability for each class by itself."""
    return _with(layers.Activation("sigmoid", name="probabilities"), backbone, head, name)


def _with(last: keras.layers.Layer, backbone: keras.Model, head: keras.Model, name: str) -> keras.Model:
    inputs = keras.Input(backbone.input.shape[1:], name="pixels")
    return keras.Model(inputs, last(with_stock_layers(head)(with_stock_layers(backbone)(inputs))), name=name)


def first_kernels(backbone: keras.Model) -> np.ndarray:
    """The first convolution's kernels scaled by the batch normalisation after it: (k, k, C, filters).

    Kernel x gamma / sqrt(running variance + epsilon), as the released code draws its figure.
    """
    convolution = next(layer for layer in backbone.layers if isinstance(layer, layers.Conv2D))
    kernels = np.asarray(convolution.kernel)
    following = backbone.layers[backbone.layers.index(convolution) + 1]
    if isinstance(following, layers.BatchNormalization) and following.scale:
        variance = np.asarray(following.moving_variance)
        kernels = kernels * np.asarray(following.gamma) / np.sqrt(variance + following.epsilon)
    return kernels
