"""Model files of others are data: what is checked in a `.keras` file before Keras sees it.

Keras builds whatever a file describes, by name: its safe mode lets a layer call functions of Keras that write files,
and a short description can ask for any amount of memory. So a file may name the layers of Keras that compute alone, and
its weights must be as many as they are said to be.
"""

import hashlib
import json
import subprocess
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from rotnet_keras.errors import DataError
from rotnet_keras.files import cache_folder, digest
from rotnet_keras.host import LIMITS_HINT, check_unpacked, limits_apply, python_command
from rotnet_keras.runs.zoo import is_shipped

CONFIG, WEIGHTS = "config.json", "model.weights.h5"
# A program of its own: to import it would load h5py and NumPy.
READER = Path(__file__).with_name("weights_reader.py")
MEMBERS = {CONFIG, WEIGHTS, "metadata.json"}
# The description of ConvNeXt XLarge, one of the longest, has 300 kB.
MAX_CONFIG_BYTES = 2**24
# EfficientNetB7 has 813. Keras takes a millisecond for each.
MAX_LAYERS = 5000
# The largest map of one image that a layer may give, in values: 2 GB in float32.
MAX_VALUES = 2**29
# Tables and lists in each other; a model in a model adds 4 to 6.
MAX_DEPTH = 100
# For reading weights: seconds, seconds per byte, and the memory of Python with h5py beside the weights.
SECONDS, SECONDS_PER_BYTE, MEMORY = 60, 1 / 20e6, 2**30
# Files that were written or checked here, one a line: a digest of the content, and one of its identity and times.
CHECKED = "checked_models.txt"

MODELS = {"Functional", "Model", "Sequential"}
MODEL_MODULES = {"keras", "keras.models", "keras.src.models.functional", "keras.src.models.sequential"}
# Layers that compute alone: not Lambda, nor those that read files, wrap other libraries or keep words.
LAYERS = """
    Activation ActivityRegularization AdaptiveAveragePooling1D AdaptiveAveragePooling2D AdaptiveAveragePooling3D
    AdaptiveMaxPooling1D AdaptiveMaxPooling2D AdaptiveMaxPooling3D Add AdditiveAttention AlphaDropout Attention
    Average AveragePooling1D AveragePooling2D AveragePooling3D BatchNormalization Bidirectional CenterCrop
    Concatenate Conv1D Conv1DTranspose Conv2D Conv2DTranspose Conv3D Conv3DTranspose ConvLSTM1D ConvLSTM2D
    ConvLSTM3D Cropping1D Cropping2D Cropping3D Dense DepthwiseConv1D DepthwiseConv2D Dot Dropout ELU EinsumDense
    Embedding Flatten GRU GRUCell GaussianDropout GaussianNoise GlobalAveragePooling1D GlobalAveragePooling2D
    GlobalAveragePooling3D GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D GroupNormalization
    GroupQueryAttention Identity InputLayer LSTM LSTMCell LayerNormalization LeakyReLU Masking MaxPooling1D
    MaxPooling2D MaxPooling3D Maximum Minimum MultiHeadAttention Multiply Normalization PReLU Permute
    RMSNormalization RandomBrightness RandomContrast RandomCrop RandomFlip RandomRotation RandomTranslation
    RandomZoom ReLU RepeatVector Rescaling Reshape Resizing SeparableConv1D SeparableConv2D SimpleRNN SimpleRNNCell
    Softmax SpatialDropout1D SpatialDropout2D SpatialDropout3D SpectralNormalization StackedRNNCells Subtract
    TimeDistributed UnitNormalization UpSampling1D UpSampling2D UpSampling3D ZeroPadding1D ZeroPadding2D
    ZeroPadding3D
"""
# What layers are made with.
INITIALIZERS = """
    Constant GlorotNormal GlorotUniform HeNormal HeUniform Identity LecunNormal LecunUniform Ones Orthogonal
    OrthogonalInitializer RandomNormal RandomUniform TruncatedNormal VarianceScaling Zeros
"""
# Operations on tensors, as `x + 1` writes them; those that take a function are not among them.
OPERATIONS = """
    Absolute Add Any Cast Clip Concatenate Divide Einsum Elu Exp ExpandDims Flip Gelu GetItem Greater HardSigmoid
    HardSilu LeakyRelu Log Matmul Max Maximum Mean Min Minimum Multiply Negative Pad Power Relu Relu6 Reshape Rsqrt
    Sigmoid Silu Softmax Softplus Sqrt Square Squeeze Stack StopGradient Subtract Sum TakeAlongAxis Tanh TopK
    Transpose TrueDivide
"""
# Keras's names of values that JSON does not have. They have no module.
VALUES = "__keras_tensor__ __tensor__ __numpy__ __ellipsis__ __slice__"
# What a description may name, by module.
KNOWN: dict[str | None, set[str]] = {
    None: set(VALUES.split()),
    "keras.layers": set(LAYERS.split()),
    "keras.initializers": set(INITIALIZERS.split()),
    "keras.regularizers": {"L1", "L1L2", "L2", "OrthogonalRegularizer"},
    "keras.constraints": {"MaxNorm", "MinMaxNorm", "NonNeg", "UnitNorm"},
    "keras.dtype_policies": {"DTypePolicy", "FloatDTypePolicy"},
    **dict.fromkeys(MODEL_MODULES, MODELS),
    "keras": MODELS | {"DTypePolicy", "FloatDTypePolicy"},
    **{f"keras.src.ops.{name}": set(OPERATIONS.split()) for name in ("core", "math", "nn", "numpy")},
}
# The layers of keras-cv in exported detectors.
DETECTOR_LAYERS = {"MultiClassNonMaxSuppression", "NonMaxSuppression", "PredictionHead"}


def check_description(path: Path, detector: bool = False) -> None:
    """Check that a file is a `.keras` archive of a model whose parts are all known to compute alone.

    Args:
        path: the file.
        detector: whether it may have the layers of keras-cv that exported detectors have.

    Raises:
        DataError: it is not, or it is larger than its own size justifies.
    """
    config = read_config(path)
    name, module = config.get("class_name"), config.get("module")
    if not (isinstance(name, str) and isinstance(module, str) and name in MODELS and module in MODEL_MODULES):
        raise _unsafe(path, f"expected a functional or a sequential model, got {name!r:.80}")
    # Keras is asked not to compile the model, so this part is not read.
    config["compile_config"] = None
    layers = 0
    for each in _described(path, config):
        problem = _problem(each, detector)
        if problem:
            raise _unsafe(path, problem)
        layers += each.get("module") == "keras.layers"
        if limits_apply() and layers > MAX_LAYERS:
            raise _unsafe(path, f"more than {MAX_LAYERS:,} layers. {LIMITS_HINT}")


def read_config(path: Path) -> dict[str, Any]:
    """Read the description of a model from a `.keras` file.

    Raises:
        DataError: the file is no such archive, or the description is larger than any model justifies.
    """
    if path.suffix != ".keras" or not path.is_file():
        raise _unsafe(path, "expected a .keras file, as keras.Model.save writes it")
    try:
        with zipfile.ZipFile(path) as archive:
            members = {each.filename: each for each in archive.infolist()}
            if set(members) != MEMBERS or len(archive.infolist()) != len(MEMBERS):
                unknown = sorted(set(members) ^ MEMBERS) or ["a name twice"]
                raise _unsafe(path, f"expected {', '.join(sorted(MEMBERS))}, and not: {', '.join(unknown)[:200]}")
            if members[CONFIG].file_size > MAX_CONFIG_BYTES:
                raise _unsafe(path, f"{CONFIG} has more than {MAX_CONFIG_BYTES:,} bytes")
            unpacked = sum(each.file_size for each in members.values())
            check_unpacked(str(path), path.stat().st_size, unpacked)
            config = json.loads(archive.read(CONFIG))
    except (OSError, zipfile.BadZipFile, ValueError, RecursionError, NotImplementedError, RuntimeError) as error:
        raise _unsafe(path, str(error)) from None
    if not isinstance(config, dict):
        raise _unsafe(path, f"{CONFIG} holds no table")
    return config


def _described(path: Path, config: Any) -> Iterator[dict[str, Any]]:
    """Yield every table of a description that names something to build, without recursion."""
    waiting: list[tuple[Any, int]] = [(config, 0)]
    while waiting:
        value, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise _unsafe(path, f"{CONFIG} has more than {MAX_DEPTH} tables and lists in each other")
        if isinstance(value, dict):
            if {"class_name", "registered_name"} & value.keys():
                yield value
            waiting += [(each, depth + 1) for each in value.values()]
        elif isinstance(value, list):
            waiting += [(each, depth + 1) for each in value]


def _problem(table: dict[str, Any], detector: bool) -> str | None:
    """Return what is wrong with a table that names something to build; None if nothing is."""
    name, module, registered = (table.get(key) for key in ("class_name", "module", "registered_name"))
    if not isinstance(name, str):
        return "a table without class_name"
    if table.get("compile_config"):
        return f"{name}: a compiled model in the model; save it again after keras.models.clone_model"
    if detector and name in DETECTOR_LAYERS and str(module).startswith("keras_cv.src."):
        return None if registered == f"keras_cv>{name}" else f"{registered!r:.80} for a layer of keras-cv"
    known = (module is None or isinstance(module, str)) and name in KNOWN.get(module, ())
    if known and registered not in (None, name):
        return f"{name!r:.80} is registered as {registered!r:.80}"
    if not known:
        return f"{name!r:.80} of {module!r:.80} is not among the layers of Keras that compute alone"
    shape = table["config"].get("batch_shape") if isinstance(table.get("config"), dict) else None
    if name == "InputLayer" and limits_apply() and _values(shape) > MAX_VALUES:
        return f"an input of shape {shape!r:.80}. {LIMITS_HINT}"
    return None


def _values(shape: Any) -> int:
    """Return how many values a shape has, where None counts as 1."""
    count = 1
    for length in shape if isinstance(shape, list) else []:
        count *= length if isinstance(length, int) else 1
    return count


def check_weights(path: Path) -> int:
    """Read the weights of a file in a process of its own, which damaged ones may end, within limits.

    Returns:
        The number of values that they hold.

    Raises:
        DataError: they cannot be read.
    """
    with zipfile.ZipFile(path) as archive:
        size = archive.getinfo(WEIGHTS).file_size
    seconds = int(SECONDS + size * SECONDS_PER_BYTE) if limits_apply() else 0
    memory = MEMORY + 8 * size if limits_apply() else 0
    words = (str(READER), str(path.absolute()), WEIGHTS, str(memory), str(seconds))
    command = python_command(*words, isolated=True)
    try:
        found = subprocess.run(
            command, capture_output=True, stdin=subprocess.DEVNULL, timeout=seconds or None, check=False
        )
        answer = json.loads(found.stdout) if not found.returncode else {}
    except subprocess.TimeoutExpired:
        raise _unsafe(path, f"its weights were not read in {seconds} seconds. {LIMITS_HINT}") from None
    if "error" in answer or "values" not in answer:
        reason = answer.get("error", f"reading them ended the process, exit code {found.returncode}")
        raise _unsafe(path, f"its weights cannot be read: {reason}")
    check_unpacked(f"{path}: {WEIGHTS}", path.stat().st_size, answer["bytes"])
    return int(answer["values"])


def is_checked(path: Path) -> bool:
    """Whether this file ships with the package, was written by it, or was checked before, with just this content.

    A large file that nobody has changed since then is not read again.
    """
    if is_shipped(path):
        return True
    try:
        known = (cache_folder() / CHECKED).read_text(encoding="utf-8").split()
        if _unchanged(path) in known:
            return True
        if digest(path) not in known:
            return False
    except (OSError, ValueError):
        return False
    remember_checked(path)
    return True


def remember_checked(path: Path) -> None:
    """Note that a file needs no check, where the cache folder can be written to."""
    with suppress(OSError):
        cache_folder().mkdir(mode=0o700, parents=True, exist_ok=True)
        unchanged = _unchanged(path)
        with (cache_folder() / CHECKED).open("a", encoding="utf-8") as file:
            file.write(f"{digest(path)} {unchanged}\n")


def _unchanged(path: Path) -> str:
    """Return a digest of what changes whenever a file does; only the kernel sets its time of change."""
    found = path.stat()
    identity = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    return hashlib.blake2b(repr(identity).encode(), digest_size=16).hexdigest()


def _unsafe(path: Path, reason: str) -> DataError:
    return DataError(f"{path}: not a Keras model that can be loaded safely: {reason}")
