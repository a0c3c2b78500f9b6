"""Exported models: plain Keras files that load without this package, and their conversion to other formats."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from rotnet_keras.engine import keras
from rotnet_keras.errors import DataError, RotnetError
from rotnet_keras.files import replacing
from rotnet_keras.models.fused_batch_norm import with_stock_layers
from rotnet_keras.runs.zoo import find_pretrained

layers = keras.layers

# Keras's names of the formats that models are converted to, and the suffixes that their files need.
FORMATS = {"savedmodel": ("tf_saved_model", ""), "onnx": ("onnx", ".onnx"), "litert": ("litert", ".tflite")}


def save_model(model: keras.Model, path: Path) -> None:
    """Write a model to a `.keras` file atomically; make its folder if it does not exist."""
    path.parent.mkdir(exist_ok=True)
    with replacing(path) as temporary:
        model.save(temporary)


def load_backbone(path: Path) -> keras.Model:
    """Load a model from a `.keras` file, uncompiled.

    Args:
        path: for example a run's `export/backbone.keras`.

    Raises:
        DataError: it is not a Keras model, or loading it could run code from the file.
    """
    try:
        return keras.models.load_model(path, compile=False)
    except Exception as error:  # Keras raises many types for files that are not its own.
        raise DataError(f"{path}: not a Keras model that can be loaded safely: {error}") from None


def load(name: str) -> keras.Model:
    """Load the backbone of a pretrained model of the model zoo.

    Args:
        name: as `rotnet-keras weights` lists it.

    Returns:
        A functional `keras.Model` of built-in layers, from raw pixels (N, H, W, C) in [0, 255] to the last feature map.
        Its card (`rotnet-keras weights NAME`) has the image size. Read the features of any layer with
        `keras.Model(model.input, model.get_layer("conv2").output)`.

    Raises:
        RotnetError: no pretrained model has this name; the message suggests the nearest.

    Example:
        >>> import numpy as np
        >>> import rotnet_keras
        >>> model = rotnet_keras.load("compact4_cifar10")
        >>> features = model(np.zeros((1, *model.input.shape[1:])))
    """
    return load_backbone(find_pretrained(name).backbone)


def convert(source: Path, to: str, target: Path) -> None:
    """Convert an exported model to another format; a failure leaves nothing behind.

    Args:
        source: a `.keras` file.
        to: "savedmodel" (a folder), "onnx" or "litert" (a file).
        target: the file or folder to write; it must not exist.

    Raises:
        RotnetError: the target exists, or the format needs a package that is not installed.
    """
    if target.exists():
        raise RotnetError(f"{target} exists already; remove it, or choose another path with --output")
    model = keras.models.load_model(source, compile=False)
    model(np.zeros((1, *model.input.shape[1:]), np.float32))  # Keras exports a model to ONNX only after it was called.
    # Written to a temporary folder and moved when complete.
    with TemporaryDirectory(prefix=".export-", dir=target.absolute().parent) as folder:
        name, suffix = FORMATS[to]
        written = Path(folder) / f"model{suffix}"
        try:
            model.export(written, format=name, verbose=False)
        except ImportError as error:
            needed = "pip install 'rotnet-keras[onnx]'"
            raise RotnetError(
                f"the format {to} needs further packages; install them with: {needed} ({error})"
            ) from None
        written.rename(target)


def with_softmax(backbone: keras.Model, head: keras.Model, name: str) -> keras.Model:
    """Join a backbone and a head into one functional model from raw pixels to softmax probabilities (N, K).

    Both are copied to built-in float32 layers, so that the export is independent of the model in training and of its
    precision.
    """
    return _joined(layers.Softmax(name="probabilities"), backbone, head, name)


def with_sigmoid(backbone: keras.Model, head: keras.Model, name: str) -> keras.Model:
    """Like `with_softmax`, with a sigmoid for each class."""
    return _joined(layers.Activation("sigmoid", name="probabilities"), backbone, head, name)


def _joined(last: keras.layers.Layer, backbone: keras.Model, head: keras.Model, name: str) -> keras.Model:
    inputs = keras.Input(backbone.input.shape[1:], name="pixels")
    return keras.Model(inputs, last(with_stock_layers(head)(with_stock_layers(backbone)(inputs))), name=name)


def first_kernels(backbone: keras.Model) -> np.ndarray:
    """The kernels of the first convolution, scaled by the batch normalisation behind it: (k, k, C, filters).

    kernel * gamma / sqrt(moving variance + epsilon), as in the figure of the released code.
    """
    convolution = next(layer for layer in backbone.layers if isinstance(layer, layers.Conv2D))
    kernels = np.asarray(convolution.kernel)
    following = backbone.layers[backbone.layers.index(convolution) + 1]
    if isinstance(following, layers.BatchNormalization) and following.scale:
        variance = np.asarray(following.moving_variance)
        kernels = kernels * np.asarray(following.gamma) / np.sqrt(variance + following.epsilon)
    return kernels
