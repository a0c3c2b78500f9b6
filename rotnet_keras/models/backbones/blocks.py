"""Building blocks of backbones: normalised pixels; convolutions with batch normalisation and ReLU."""

from collections.abc import Callable, Sequence

from rotnet_keras.engine import keras

layers = keras.layers

# The defaults of PyTorch's BatchNorm2d: running = 0.9 * running + 0.1 * batch, and epsilon 1e-5.
BATCH_NORM = {"momentum": 0.9, "epsilon": 1e-5}


def pixels(
    input_shape: Sequence[int],
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    name: str = "normalization",
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """The input of a backbone, raw pixels (H, W, C), and the normalised pixels."""
    channels = input_shape[-1]
    inputs = keras.Input(tuple(input_shape), name="pixels", dtype="float32")
    return inputs, normalization(mean or [127.5] * channels, std or [127.5] * channels, name)(inputs)


def normalization(mean: Sequence[float], std: Sequence[float], name: str = "normalization") -> keras.layers.Layer:
    """A layer that maps pixels to mean 0 and standard deviation 1, in float32 under any dtype policy.

    It is a `Rescaling`, because the constants of Keras's `Normalization` become missing inputs in an ONNX export.
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
    """The `position`-th convolution of a block, without bias, with batch normalisation and a ReLU."""
    kernel_initializer = initializer if isinstance(initializer, str) else initializer()
    x = layers.Conv2D(
        channels,
        kernel,
        padding="same",
        use_bias=False,
        kernel_initializer=kernel_initializer,
        name=f"{block}_conv{position}",
    )(x)
    return bn_relu(x, f"{block}_bn{position}", relu or f"{block}_relu{position}", torch_gamma)


def bn_relu(x: keras.KerasTensor, bn: str, relu: str, torch_gamma: bool = False) -> keras.KerasTensor:
    """Batch normalisation and a ReLU, with layers of these names."""
    # PyTorch up to 1.1 initialised the scale of a batch normalisation from U(0, 1).
    return bn_activation(x, bn, "relu", relu, keras.initializers.RandomUniform(0.0, 1.0) if torch_gamma else "ones")


def bn_activation(
    x: keras.KerasTensor, bn: str, activation: str, name: str, gamma: str | keras.initializers.Initializer = "ones"
) -> keras.KerasTensor:
    """Batch normalisation and an activation, "relu" or "silu", with layers of these names."""
    x = layers.BatchNormalization(**BATCH_NORM, gamma_initializer=gamma, name=bn)(x)
    return layers.Activation(activation, name=name)(x)


def torch_uniform() -> keras.initializers.Initializer:
    """Initial weights uniform in +-1/sqrt(fan_in), as in the PyTorch version of the released code.

    It returns a new object each time, because one initializer gives all layers of the same shape the same weights.
    """
    return keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")


def torch_bias(fan_in: int) -> keras.initializers.Initializer:
    """Initial biases uniform in +-1/sqrt(fan_in), as in the PyTorch version of the released code."""
    return keras.initializers.RandomUniform(-(fan_in**-0.5), fan_in**-0.5)
