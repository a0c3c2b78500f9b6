"""What backbones are made of: normalised pixels, and convolutions under batch normalisation and ReLU."""

from collections.abc import Callable, Sequence

from rotnet_keras.engine import keras

layers = keras.layers

# What PyTorch's BatchNorm2d does by default: running = 0.9 * running + 0.1 * batch, and epsilon 1e-5.
BATCH_NORM = {"momentum": 0.9, "epsilon": 1e-5}


def pixels(
    input_shape: Sequence[int],
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    name: str = "normalization",
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """The input of a backbone, raw pixels (H, W, C), and the same normalised."""
    channels = input_shape[-1]
    inputs = keras.Input(tuple(input_shape), name="pixels", dtype="float32")
    return inputs, normalization(mean or [127.5] * channels, std or [127.5] * channels, name)(inputs)


def normalization(mean: Sequence[float], std: Sequence[float], name: str = "normalization") -> keras.layers.Layer:
    """The layer that makes pixels into numbers of mean 0 and deviation 1, in float32 under any policy.

    A `Rescaling`: the constants of Keras's own `Normalization` become missing inputs in an ONNX export.
    """
    scale = [1 / float(s) for s in std]
    offset = [-float(m) / float(s) for m, s in zip(mean, std, strict=True)]
    return layers.Rescaling(scale, offset, dtype="float32", name=name)


def conv_bn_relu(
    x: keras.KerasTensor,
    kernel: int,
    channels: int,
    block: str,
    position: int,
    initializer: str | Callable[[], keras.initializers.Initializer],
    relu: str | None = None,
    torch_gamma: bool = False,
) -> keras.KerasTensor:
    """The `position`-th convolution of a block, without bias, under batch normalisation and a ReLU."""
    weights = initializer if isinstance(initializer, str) else initializer()
    x = layers.Conv2D(
        channels,
        kernel,
        padding="same",
        use_bias=False,
        kernel_initializer=weights,
        name=f"{block}_conv{position}",
    )(x)
    return bn_relu(x, f"{block}_bn{position}", relu or f"{block}_relu{position}", torch_gamma)


def bn_relu(x: keras.KerasTensor, bn: str, relu: str, torch_gamma: bool = False) -> keras.KerasTensor:
    """Batch normalisation and a ReLU, of these names."""
    # PyTorch up to 1.1 drew the scale of a batch normalisation from U(0, 1).
    gamma = keras.initializers.RandomUniform(0.0, 1.0) if torch_gamma else "ones"
    x = layers.BatchNormalization(**BATCH_NORM, gamma_initializer=gamma, name=bn)(x)
    return layers.Activation("relu", name=relu)(x)


def torch_uniform() -> keras.initializers.Initializer:
    """Weights uniform in +-1/sqrt(fan_in), as the PyTorch of the released code drew them.

    A new object each time: one initializer with a fixed seed gives layers of one shape the same weights.
    """
    return keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")


def torch_bias(fan_in: int) -> keras.initializers.Initializer:
    """Biases as that PyTorch drew them."""
    return keras.initializers.RandomUniform(-(fan_in**-0.5), fan_in**-0.5)
