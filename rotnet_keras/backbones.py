"""Backbones: functional Keras models of stock layers, from raw pixels to the last feature map.

Every backbone takes pixels in [0, 255] and begins with a `normalization` layer. Its blocks end in layers
named `conv1`, `conv2`, ...: the taps, which any Keras can read with `model.get_layer("conv2").output`.
"""

from collections.abc import Callable, Sequence

from rotnet_keras.engine import keras
from rotnet_keras.errors import DataError
from rotnet_keras.schema import Backbone

layers = keras.layers

# What PyTorch's BatchNorm2d does by default: running = 0.9 * running + 0.1 * batch, and epsilon 1e-5.
BATCH_NORM = {"momentum": 0.9, "epsilon": 1e-5}


def torch_uniform() -> keras.initializers.Initializer:
    """Weights uniform in +-1/sqrt(fan_in), as the PyTorch of the released code drew them.

    A new object each time: one initializer with a fixed seed gives layers of one shape the same weights.
    """
    return keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")


def nin(
    input_shape: Sequence[int],
    *,
    blocks: int = 4,
    width: float = 1.0,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> keras.Model:
    """Network in Network, as the paper uses it on CIFAR-10 (released code, `NetworkInNetwork.py`).

    Args:
        input_shape: (H, W, C) of raw pixels in [0, 255].
        blocks: 2 or more; each has three convolutions. The paper compares 3, 4 and 5.
        width: multiplies every number of channels (192, 160 and 96 at 1.0).
        mean, std: per channel, on the scale of the pixels; 127.5 each when not given.

    Returns:
        A model whose output is the last block's map. For 32 x 32 inputs the taps are `conv1`
        (16, 16, 96) and `conv2` (8, 8, 192), both after their pool, and `conv3` ... (8, 8, 192).
    """
    wide, middle, narrow = (max(1, round(width * n)) for n in (192, 160, 96))
    inputs, x = _pixels(input_shape, mean, std)

    x = _nin_convolutions(x, 1, [(5, wide), (1, middle), (1, narrow)])
    # After a ReLU a border of zeros is what PyTorch's padding with -inf comes to.
    x = layers.ZeroPadding2D(1, name="block1_pad")(x)
    x = layers.MaxPooling2D(3, 2, name="conv1")(x)

    x = _nin_convolutions(x, 2, [(5, wide), (1, wide), (1, wide)])
    # PyTorch's average counts the padding: zeros and a plain pool, not `padding="same"`.
    x = layers.ZeroPadding2D(1, name="block2_pad")(x)
    x = layers.AveragePooling2D(3, 2, name="conv2")(x)

    for block in range(3, blocks + 1):
        x = _nin_convolutions(x, block, [(3, wide), (1, wide), (1, wide)], last_relu=f"conv{block}")
    return keras.Model(inputs, x, name="nin")


def compact(
    input_shape: Sequence[int],
    *,
    blocks: int = 4,
    width: float = 1.0,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> keras.Model:
    """A small plain net that learns fast on a CPU: 3 x 3 convolutions, early pooling, few channels.

    A CPU is fast at dense convolutions and slow at what small GPU-era nets save arithmetic with
    (depthwise and grouped convolutions, squeeze-and-excite). So each block is convolution, max pool,
    convolution: the first sees detail, the second is four times cheaper for coming after the pool and
    can afford twice the channels. NIN spends 0.5 GFLOP on a 32 x 32 image, this net 0.07, hence several
    times as many images in the same time, which is what an under-trained network gains from most. The
    last block keeps its resolution, specialises in the pretext task and shields the blocks before it,
    whose features are the ones to use.

    Args:
        input_shape: (H, W, C) of raw pixels in [0, 255].
        blocks: 2 or more; block i opens with width * min(32 * 2**(i-1), 128) channels and closes with
            as many as block i+1 opens with.
        width: multiplies every number of channels.
        mean, std: per channel, on the scale of the pixels; 127.5 each when not given.

    Returns:
        A model whose output is the last block's map. For 32 x 32 inputs the taps are `conv1`
        (16, 16, 64), `conv2` (8, 8, 128), `conv3` (4, 4, 128) and, with four blocks, `conv4` (4, 4, 128).
    """
    inputs, x = _pixels(input_shape, mean, std)
    for block in range(1, blocks + 1):
        opening, closing = (max(1, round(width * min(32 * 2**doubled, 128))) for doubled in (block - 1, block))
        x = _conv_bn_relu(x, 3, opening, f"block{block}", 1, "he_normal")
        if block < blocks:
            x = layers.MaxPooling2D(2, name=f"block{block}_pool")(x)
        x = _conv_bn_relu(x, 3, closing, f"block{block}", 2, "he_normal", relu=f"conv{block}")
    return keras.Model(inputs, x, name="compact")


def alexnet(
    input_shape: Sequence[int],
    *,
    width: float = 1.0,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> keras.Model:
    """AlexNet with batch normalisation, without groups, dropout and local normalisation (released code, `AlexNet.py`).

    Args:
        input_shape: (H, W, C) of raw pixels in [0, 255]; (224, 224, 3) in the paper, at least 63 pixels a side.
        width: multiplies every number of channels and units.
        mean, std: per channel, on the scale of the pixels; 127.5 each when not given.

    Returns:
        A model whose output is `fc7` (4096). For 224 x 224 inputs the taps are `conv1` (55, 55, 64), `conv2`
        (27, 27, 192), `conv3` (13, 13, 384), `conv4` and `conv5` (13, 13, 256), all before a pool; beside them
        there are `pool1` (27, 27, 64), `pool2` (13, 13, 192), `pool5` (6, 6, 256) and `fc6` (4096).
    """
    inputs, x = _pixels(input_shape, mean, std)
    x = layers.ZeroPadding2D(2, name="block1_pad")(x)
    specs = [(11, 64, 4, "valid"), (5, 192, 1, "same"), (3, 384, 1, "same"), (3, 256, 1, "same"), (3, 256, 1, "same")]
    for block, (kernel, channels, strides, padding) in enumerate(specs, 1):
        x = layers.Conv2D(
            max(1, round(width * channels)),
            kernel,
            strides,
            padding,
            kernel_initializer=torch_uniform(),
            bias_initializer=_torch_bias(kernel**2 * x.shape[-1]),
            name=f"block{block}_conv1",
        )(x)
        x = _bn_relu(x, f"block{block}_bn1", f"conv{block}", torch_gamma=True)
        if block in (1, 2, 5):
            x = layers.MaxPooling2D(3, 2, name=f"pool{block}")(x)
    x = layers.Flatten(name="flatten")(x)
    for name in ("fc6", "fc7"):
        units = max(1, round(width * 4096))
        x = layers.Dense(units, use_bias=False, kernel_initializer=torch_uniform(), name=f"{name}_dense")(x)
        x = _bn_relu(x, f"{name}_bn", name, torch_gamma=True)
    return keras.Model(inputs, x, name="alexnet")


BACKBONES: dict[str, Callable[..., keras.Model]] = {"nin": nin, "compact": compact, "alexnet": alexnet}


def backbone(name: str, input_shape: Sequence[int] = (32, 32, 3), **options: object) -> keras.Model:
    """Build a backbone by name with fresh weights.

    Args:
        name: "nin", "compact" or "alexnet".
        input_shape: (H, W, C) of raw pixels in [0, 255].
        **options: those of the builder: `width`, `mean`, `std` and, but for AlexNet, `blocks`.

    Returns:
        A functional `keras.Model` from (N, H, W, C) to the last block's feature map.

    Raises:
        ValueError: no backbone has this name.
    """
    if name not in BACKBONES:
        raise ValueError(f"No backbone is called {name!r}. There are: {', '.join(BACKBONES)}.")
    return BACKBONES[name](input_shape, **options)


def build(spec: Backbone, shape: Sequence[int], mean: Sequence[float], std: Sequence[float]) -> keras.Model:
    """The backbone that a recipe describes, with fresh weights, for images of one shape (H, W, C)."""
    return backbone(spec.name, shape, blocks=spec.blocks, width=spec.width, mean=mean, std=std)


def outputs_of(model: keras.Model, names: Sequence[str]) -> dict[str, keras.KerasTensor]:
    """The outputs of some layers of a functional model, by name.

    Raises:
        DataError: it has no such layer.
    """
    missing = [name for name in names if name not in {layer.name for layer in model.layers}]
    if missing:
        last = ", ".join(layer.name for layer in model.layers[-5:])
        raise DataError(f"the backbone has no layer called {', '.join(missing)}; its layers end in {last}")
    return {name: model.get_layer(name).output for name in names}


def taps(model: keras.Model) -> list[str]:
    """Names of the model's taps, from the input on: the layers called `conv<number>`."""
    return [layer.name for layer in model.layers if layer.name[:4] == "conv" and layer.name[4:].isdigit()]


def normalization(mean: Sequence[float], std: Sequence[float]) -> keras.layers.Layer:
    """The layer that makes pixels into numbers of mean 0 and deviation 1, in float32 under any policy.

    A `Rescaling`: the constants of Keras's own `Normalization` become missing inputs in an ONNX export.
    """
    scale = [1 / float(s) for s in std]
    offset = [-float(m) / float(s) for m, s in zip(mean, std, strict=True)]
    return layers.Rescaling(scale, offset, dtype="float32", name="normalization")


def _pixels(
    input_shape: Sequence[int], mean: Sequence[float] | None, std: Sequence[float] | None
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    channels = input_shape[-1]
    inputs = keras.Input(tuple(input_shape), name="pixels", dtype="float32")
    return inputs, normalization(mean or [127.5] * channels, std or [127.5] * channels)(inputs)


def _nin_convolutions(
    x: keras.KerasTensor, block: int, specs: Sequence[tuple[int, int]], last_relu: str | None = None
) -> keras.KerasTensor:
    for position, (kernel, channels) in enumerate(specs, 1):
        relu = last_relu if position == len(specs) else None
        x = _conv_bn_relu(x, kernel, channels, f"block{block}", position, torch_uniform, relu, torch_gamma=True)
    return x


def _conv_bn_relu(
    x: keras.KerasTensor,
    kernel: int,
    channels: int,
    block: str,
    position: int,
    initializer: str | Callable[[], keras.initializers.Initializer],
    relu: str | None = None,
    torch_gamma: bool = False,
) -> keras.KerasTensor:
    weights = initializer if isinstance(initializer, str) else initializer()
    x = layers.Conv2D(
        channels,
        kernel,
        padding="same",
        use_bias=False,
        kernel_initializer=weights,
        name=f"{block}_conv{position}",
    )(x)
    return _bn_relu(x, f"{block}_bn{position}", relu or f"{block}_relu{position}", torch_gamma)


def _bn_relu(x: keras.KerasTensor, bn: str, relu: str, torch_gamma: bool) -> keras.KerasTensor:
    # PyTorch up to 1.1 drew the scale of a batch normalisation from U(0, 1).
    gamma = keras.initializers.RandomUniform(0.0, 1.0) if torch_gamma else "ones"
    x = layers.BatchNormalization(**BATCH_NORM, gamma_initializer=gamma, name=bn)(x)
    return layers.Activation("relu", name=relu)(x)


def _torch_bias(fan_in: int) -> keras.initializers.Initializer:
    return keras.initializers.RandomUniform(-(fan_in**-0.5), fan_in**-0.5)
