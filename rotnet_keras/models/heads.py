"""Heads: classifiers on the features of a tap, with the layouts and the initialisation of the released code."""

import math
from collections.abc import Callable, Sequence
from itertools import repeat

from rotnet_keras.engine import keras
from rotnet_keras.models.backbones.blocks import BATCH_NORM, torch_bias

layers = keras.layers

# The paper's linear probes pool the features of a tap to about this number: AlexNet's five taps to maps of 12, 7, 5, 6
# and 6 cells a side.
LINEAR_FEATURES = 9216
MLP_MAXIMUM = 2048
# The side of AlexNet's last pool, and the units of its dense layers.
POOL, FC_UNITS = 3, 4096


def pool(x: keras.KerasTensor, classes: int, hidden: Sequence[int] = ()) -> keras.KerasTensor:
    """Global average pooling of a map, and a dense layer with PyTorch's initialisation: the end of a NIN.

    Args:
        x: features.
        classes: the number of logits.
        hidden: units of dense layers in between, each with batch normalisation and a ReLU.
    """
    if len(x.shape) == 4:
        x = layers.GlobalAveragePooling2D()(x)
    x = _hidden_layers(x, hidden)
    bound = float(x.shape[-1]) ** -0.5
    return layers.Dense(
        classes,
        kernel_initializer=keras.initializers.RandomUniform(-bound, bound),
        bias_initializer=keras.initializers.RandomUniform(-bound, bound),
        dtype="float32",
    )(x)


def linear(x: keras.KerasTensor, classes: int) -> keras.KerasTensor:
    """Adaptive max pooling to about 9,216 features, batch normalisation without scale or shift, and a dense layer."""
    if len(x.shape) == 4:
        side = min(x.shape[1], x.shape[2], round(math.sqrt(LINEAR_FEATURES / x.shape[3])))
        if side < min(x.shape[1], x.shape[2]):
            x = layers.AdaptiveMaxPooling2D(max(1, side))(x)
    x = layers.BatchNormalization(**BATCH_NORM, center=False, scale=False)(x)
    return _logits(layers.Flatten()(x), classes)


def mlp(x: keras.KerasTensor, classes: int) -> keras.KerasTensor:
    """The paper's non-linear probe: two hidden layers of min(20 * classes, 2048) units with batch normalisation."""
    x = layers.Flatten()(x)
    hidden = min(20 * classes, MLP_MAXIMUM)
    return _logits(_hidden_layers(x, [hidden, hidden]), classes)


def conv(x: keras.KerasTensor, classes: int) -> keras.KerasTensor:
    """The paper's convolutional probe: a new third NIN block, global average pooling, and a dense layer."""
    for kernel in (3, 1, 1):
        x = layers.Conv2D(
            192, kernel, padding="same", use_bias=False, kernel_initializer=_scaled_normal(kernel**2 * 192)
        )(x)
        x = layers.BatchNormalization(**BATCH_NORM)(x)
        x = layers.Activation("relu")(x)
    return _logits(layers.GlobalAveragePooling2D()(x), classes)


def fc(x: keras.KerasTensor, classes: int) -> keras.KerasTensor:
    """New layers as after AlexNet's fifth convolution: a max pool, two layers of 4,096 units (paper, Table 4)."""
    if len(x.shape) == 4:
        if min(x.shape[1:3]) >= POOL:
            x = layers.MaxPooling2D(POOL, 2)(x)
        x = layers.Flatten()(x)
    # The released code initialises the scales of its two-dimensional batch normalisations with 1, also those of `mlp`.
    # These are one-dimensional ones, which it leaves as PyTorch up to 1.1 drew them.
    scales = [keras.initializers.RandomUniform(0.0, 1.0) for _ in range(2)]
    return _logits(_hidden_layers(x, [FC_UNITS, FC_UNITS], scales), classes)


def conv_fc(x: keras.KerasTensor, classes: int) -> keras.KerasTensor:
    """New layers as after AlexNet's fourth convolution: the fifth convolution, then `fc` (paper, Table 4)."""
    initializers = {"kernel_initializer": _scaled_normal(9 * 256), "bias_initializer": torch_bias(9 * x.shape[-1])}
    x = layers.Conv2D(256, 3, padding="same", **initializers)(x)
    x = layers.BatchNormalization(**BATCH_NORM)(x)
    return fc(layers.Activation("relu")(x), classes)


HEADS: dict[str, Callable[..., keras.KerasTensor]] = {
    "pool": pool,
    "linear": linear,
    "mlp": mlp,
    "conv": conv,
    "fc": fc,
    "conv_fc": conv_fc,
}


def build_head(
    name: str, feature_shape: tuple[int, ...], classes: int, tap: str, **options: Sequence[int]
) -> keras.Model:
    """Build a head for the features of one tap.

    Args:
        name: a key of `HEADS`.
        feature_shape: of the tap without the batch dimension: (H, W, C) or (F,).
        classes: K.
        tap: the tap's name, which becomes part of the names of input and model.
        **options: further arguments of the builder: `hidden` of `pool`.

    Returns:
        A functional model from (N, *feature_shape) to float32 logits (N, K).

    Example:
        >>> build_head("linear", (8, 8, 192), 10, "conv2").output.shape
        (None, 10)
    """
    features = keras.Input(feature_shape, name=f"{tap}_features")
    return keras.Model(features, HEADS[name](features, classes, **options), name=f"{name}_on_{tap}")


def start_as_in_voc(head: keras.Model, seed: int) -> None:
    """Set the logits' layer of a head to weights from N(0, 0.01) and biases of 0.1.

    New layers start so in the protocol of VOC's classification (Kraehenbuehl et al., 2016).

    Args:
        head: of `build_head`.
        seed: of the weights.
    """
    logits = head.layers[-1]
    logits.kernel.assign(keras.initializers.RandomNormal(stddev=0.01, seed=seed)(logits.kernel.shape))
    logits.bias.assign(keras.ops.full(logits.bias.shape, 0.1))


def _hidden_layers(
    x: keras.KerasTensor, units: Sequence[int], scales: Sequence[keras.initializers.Initializer] = ()
) -> keras.KerasTensor:
    for count, scale in zip(units, scales or repeat("ones"), strict=False):
        x = layers.Dense(count, use_bias=False, kernel_initializer=_scaled_normal(count))(x)
        x = layers.BatchNormalization(**BATCH_NORM, gamma_initializer=scale)(x)
        x = layers.Activation("relu")(x)
    return x


def _scaled_normal(fan_out: int) -> keras.initializers.Initializer:
    return keras.initializers.RandomNormal(stddev=math.sqrt(2 / fan_out))


def _logits(x: keras.KerasTensor, classes: int) -> keras.KerasTensor:
    return layers.Dense(classes, kernel_initializer=_scaled_normal(classes), dtype="float32")(x)
