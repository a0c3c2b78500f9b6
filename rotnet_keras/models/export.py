"""Exported models: plain Keras files that load without this package, and their conversion to other formats."""

import importlib
import json
import math
import shutil
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

import numpy as np

from rotnet_keras.engine import keras
from rotnet_keras.errors import DataError, RotnetError
from rotnet_keras.files import make_folder, move, open_file, replacing
from rotnet_keras.host import LIMITS_HINT, limits_apply
from rotnet_keras.models.fused_batch_norm import with_stock_layers
from rotnet_keras.runs.exports.backbone_file import VALUES
from rotnet_keras.runs.exports.model_files import (
    CONFIG,
    MAX_VALUES,
    check_description,
    check_weights,
    is_checked,
    remember_checked,
)
from rotnet_keras.runs.zoo import find_pretrained

layers = keras.layers

# The name of the file that an exported detector has.
DETECTOR = "detector"
# Keys that Keras writes into files, and that older versions of Keras 3 refuse, with their defaults: of initializers
# (3.14), of batch normalisation (3.13) and of inputs (3.5).
NEWER_KEYS = {
    "input_axes": None,
    "output_axes": None,
    "renorm": False,
    "renorm_clipping": None,
    "renorm_momentum": 0.99,
    "optional": False,
    "quantization_config": None,
}
# Keras's names of the formats that models are converted to, and the suffixes that their files need.
FORMATS = {"savedmodel": ("tf_saved_model", ""), "onnx": ("onnx", ".onnx"), "litert": ("litert", ".tflite")}


def save_model(model: keras.Model, path: Path, inside: Path | None = None) -> None:
    """Write a model to a `.keras` file atomically; make its folder if it does not exist.

    The file loads in every version of Keras 3 that has its layers: see `write_portable`.

    Args:
        model: the model.
        path: the file.
        inside: a folder that holds it, at any depth; below this folder no link is followed.

    Raises:
        OSError: it cannot be written, or would be reached by a link below `inside`; nothing is left.
    """
    make_folder(path.parent, inside)
    place = inside or path.parent
    # Keras writes files by their names only.
    with replacing(path, inside) as temporary, TemporaryDirectory(prefix=".export.tmp-", dir=place) as folder:
        written = place / Path(folder).name / "model.keras"
        model.save(written)
        with open_file(written, place) as whole:
            write_portable(whole, temporary)
    remember_checked(path)


def write_portable(source: BinaryIO, target: BinaryIO) -> None:
    """Copy a `.keras` file without what older versions of Keras 3 do not know in it: new keys with their defaults.

    Args:
        source: as Keras writes it.
        target: an empty file, open for writing.
    """
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for member in old.infolist():
            if member.filename == CONFIG:
                new.writestr(member, json.dumps(without_newer_keys(json.loads(old.read(member)))))
                continue
            with old.open(member) as content, new.open(member, "w", force_zip64=True) as copy:
                shutil.copyfileobj(content, copy, 2**20)


def without_newer_keys(description: Any) -> Any:
    """Return a model's description without the keys of `NEWER_KEYS` where they have their defaults."""
    if isinstance(description, list):
        return [without_newer_keys(each) for each in description]
    if not isinstance(description, dict):
        return description
    return {
        key: without_newer_keys(value)
        for key, value in description.items()
        if key not in NEWER_KEYS or value != NEWER_KEYS[key]
    }


def load_backbone(path: Path, detector: bool = False) -> keras.Model:
    """Load a model from a `.keras` file, uncompiled. Files of others run no code, and cost what their size justifies.

    The file is checked before Keras sees it: see `runs.exports.model_files`. One that neither ships with the package
    nor was written or checked here before takes about half a second longer: another process reads its weights first.

    Args:
        path: for example a run's `export/backbone.keras`.
        detector: whether it may be an exported detector, which has layers of keras-cv.

    Raises:
        DataError: it is not a Keras model, or loading it could run code from the file, or it is larger than its size
            justifies.
    """
    check_description(path, detector)
    if detector:
        importlib.import_module("keras_cv.layers")
    try:
        if not is_checked(path):
            _check_size(path)
            remember_checked(path)
        return _as_functional(keras.models.load_model(path, compile=False))
    except DataError:
        raise
    except Exception as error:  # Keras raises many types for files that are not its own.
        raise DataError(f"{path}: not a Keras model that can be loaded safely: {error}") from None


def _as_functional(model: keras.Model) -> keras.Model:
    """Return a sequential model as a functional one of the same layers, whose input and layers have outputs to read."""
    if not isinstance(model, keras.Sequential):
        return model
    return keras.Model(model.inputs[0], model.outputs[0], name=model.name)


def _check_size(path: Path) -> None:
    """Make sure that a file's weights can be read and are there, and that no layer gives a map of any size.

    Raises:
        DataError: the weights cannot be read, or a model of this description has more weights than the file, or larger
            maps than `MAX_VALUES`.
    """
    with ThreadPoolExecutor(1) as pool:  # What Keras keeps for its scopes is each thread's own, and ends with this one.
        measured = pool.submit(_measure, path)
        stored = check_weights(path)
        weights, largest = measured.result()
    if weights > stored:
        raise DataError(f"{path}: the model has {weights:,} weights, and the file holds {stored:,}")
    if limits_apply() and largest > MAX_VALUES:
        raise DataError(
            f"{path}: a layer gives {largest:,} values for an image, more than {MAX_VALUES:,}. {LIMITS_HINT}"
        )


def _measure(path: Path) -> tuple[int, int]:
    """Return the number of weights of a model, and of values in its largest map. Nothing of their sizes is made."""
    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read(CONFIG)) | {"compile_config": None}
    with keras.StatelessScope(initialize_variables=False):
        model = keras.saving.deserialize_keras_object(config, safe_mode=True)
        largest, models = 0, [model]
        while models:
            part = models.pop()
            parts = getattr(part, "operations", part.layers)  # A sequential model has layers only.
            models += [part for part in parts if isinstance(part, keras.Model)]
            outputs = [tensor for part in parts for tensor in keras.tree.flatten(part.output)]
            largest = max(largest, *(math.prod(length or 1 for length in tensor.shape) for tensor in outputs))
        return sum(math.prod(variable.shape) for variable in model.weights), largest


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


def convert(source: Path, to: str, target: Path, inside: Path | None = None) -> None:
    """Convert an exported model to another format; a failure leaves nothing behind.

    Args:
        source: a `.keras` file.
        to: "savedmodel" (a folder), "onnx" or "litert" (a file).
        target: the file or folder to write; it must not exist.
        inside: a folder that holds it, at any depth; below this folder no link is followed.

    Raises:
        RotnetError: the target exists, or the format needs a package that is not installed.
    """
    if target.exists():
        raise RotnetError(f"{target} exists already; remove it, or choose another path with --output")
    model = load_backbone(source, detector=source.stem == DETECTOR)
    model(np.zeros((1, *model.input.shape[1:]), np.float32))  # Keras exports a model to ONNX only after it was called.
    # Written to a temporary folder and moved when complete.
    with TemporaryDirectory(prefix=".export.tmp-", dir=inside or target.absolute().parent) as folder:
        name, suffix = FORMATS[to]
        written = Path(folder) / f"model{suffix}"
        try:
            model.export(written, format=name, verbose=False)
        except ImportError as error:
            needed = "pip install 'rotnet-keras[onnx]'"
            raise RotnetError(
                f"the format {to} needs further packages; install them with: {needed} ({error})"
            ) from None
        move(written, target, inside)


def with_softmax(backbone: keras.Model, head: keras.Model, name: str) -> keras.Model:
    """Join a backbone and a head into one functional model from raw pixels to softmax probabilities (N, K).

    Both are copied to built-in float32 layers, so that the export is independent of the model in training and of its
    precision.
    """
    return joined(backbone, head, name, layers.Softmax(name="probabilities"))


def with_sigmoid(backbone: keras.Model, head: keras.Model, name: str) -> keras.Model:
    """Like `with_softmax`, with a sigmoid for each class."""
    return joined(backbone, head, name, layers.Activation("sigmoid", name="probabilities"))


def joined(backbone: keras.Model, head: keras.Model, name: str, last: keras.layers.Layer | None = None) -> keras.Model:
    """Join a backbone and a head into one functional model of built-in float32 layers, with a last layer if given."""
    inputs = keras.Input(backbone.input.shape[1:], name=VALUES if backbone.input.name == VALUES else "pixels")
    outputs = with_stock_layers(head)(with_stock_layers(backbone)(inputs))
    return keras.Model(inputs, outputs if last is None else last(outputs), name=name)


def first_kernels(backbone: keras.Model) -> np.ndarray:
    """The kernels of the first convolution, scaled by the batch normalisation behind it: (k, k, C, filters).

    kernel * gamma / sqrt(moving variance + epsilon), as in the figure of the released code.
    """
    convolution = next(layer for layer in backbone.layers if isinstance(layer, layers.Conv2D))
    kernels = np.asarray(convolution.kernel)
    # A backbone of others may end in its first convolution.
    following = next(iter(backbone.layers[backbone.layers.index(convolution) + 1 :]), None)
    if isinstance(following, layers.BatchNormalization) and following.scale:
        variance = np.asarray(following.moving_variance)
        kernels = kernels * np.asarray(following.gamma) / np.sqrt(variance + following.epsilon)
    return kernels
