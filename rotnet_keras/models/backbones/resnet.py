"""ResNet-50, v1.5 and v2: the backbones of later work on rotation prediction."""

from collections.abc import Sequence

from rotnet_keras.engine import keras
from rotnet_keras.models.backbones.blocks import BATCH_NORM, bn_relu, pixels

layers = keras.layers

# (bottlenecks, inner channels) of the four stages (He et al., 2016, Table 1); the output has four times the channels.
STAGES = ((3, 64), (4, 128), (6, 256), (3, 512))
EXPANSION = 4


def resnet50(
    input_shape: Sequence[int],
    *,
    width: float = 1.0,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    stem: str = "standard",
) -> keras.Model:
    """ResNet-50 v1.5: a stage has its stride in the 3 x 3 convolution of its first bottleneck, not in the 1 x 1.

    Padding is symmetric, also with a stride, as in PyTorch.

    Args:
        input_shape: (H, W, C) of raw pixels in [0, 255]; usually (224, 224, 3), at least 32 pixels a side.
        width: multiplies every number of channels.
        mean, std: of the pixels, for each channel; 127.5 by default.
        stem: "small" begins with a 3 x 3 convolution without a stride and without a pool, for images of at least 8
            pixels.

    Returns:
        A model whose output is the last stage's map. For 224 x 224 inputs the taps are `conv1` (112, 112, 64), before
        the pool, and the ends of the stages, `conv2` (56, 56, 256), `conv3` (28, 28, 512), `conv4` (14, 14, 1024) and
        `conv5` (7, 7, 2048). It has 23,508,032 trainable parameters with width 1.
    """
    inputs, x = pixels(input_shape, mean, std)
    small = stem == "small"
    x = _convolution(x, 3 if small else 7, _channels(64, width), 1 if small else 2, "stem_conv")
    x = bn_relu(x, "stem_bn", "conv1")
    x = x if small else _pool(x)
    for stage, (count, inner) in enumerate(STAGES, 2):
        for position in range(1, count + 1):
            name = f"stage{stage}_unit{position}"
            stride = 2 if position == 1 and stage > 2 else 1
            outer, shortcut = EXPANSION * inner, x
            if position == 1:
                shortcut = _convolution(x, 1, _channels(outer, width), stride, f"{name}_shortcut")
                shortcut = layers.BatchNormalization(**BATCH_NORM, name=f"{name}_shortcut_bn")(shortcut)
            x = _convolution(x, 1, _channels(inner, width), 1, f"{name}_conv1")
            x = bn_relu(x, f"{name}_bn1", f"{name}_relu1")
            x = _convolution(x, 3, _channels(inner, width), stride, f"{name}_conv2")
            x = bn_relu(x, f"{name}_bn2", f"{name}_relu2")
            x = _convolution(x, 1, _channels(outer, width), 1, f"{name}_conv3")
            # With zeros a bottleneck starts as the identity (Goyal et al., 2017), which keeps the first logits small.
            x = layers.BatchNormalization(**BATCH_NORM, gamma_initializer="zeros", name=f"{name}_bn3")(x)
            x = layers.Add(name=f"{name}_sum")([x, shortcut])
            x = layers.Activation("relu", name=f"conv{stage}" if position == count else f"{name}_relu3")(x)
    return keras.Model(inputs, x, name="resnet50")


def resnet50v2(
    input_shape: Sequence[int],
    *,
    width: float = 1.0,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    stem: str = "standard",
) -> keras.Model:
    """ResNet-50 v2: batch normalisation and ReLU before each convolution, nothing behind a sum.

    Kolesnikov et al. (2019) found that the last features of such networks stay useful, more so the wider they are.

    Args:
        input_shape: (H, W, C) of raw pixels in [0, 255]; usually (224, 224, 3), at least 32 pixels a side.
        width: multiplies every number of channels.
        mean, std: of the pixels, for each channel; 127.5 by default.
        stem: "small" begins with a 3 x 3 convolution without a stride and without a pool, for images of at least 8
            pixels.

    Returns:
        A model whose output is `post_relu` (7, 7, 2048) for 224 x 224 inputs, the last stage's map behind a last batch
        normalisation and ReLU. The taps have the same shapes as those of `resnet50`: `conv1` is the first convolution
        itself, the others are the sums at the ends of the stages. It has 23,500,352 trainable parameters with width 1.
    """
    inputs, x = pixels(input_shape, mean, std)
    small = stem == "small"
    x = _convolution(x, 3 if small else 7, _channels(64, width), 1 if small else 2, "conv1")
    x = x if small else _pool(x)
    for stage, (count, inner) in enumerate(STAGES, 2):
        for position in range(1, count + 1):
            name = f"stage{stage}_unit{position}"
            stride = 2 if position == 1 and stage > 2 else 1
            outer, shortcut = EXPANSION * inner, x
            x = bn_relu(x, f"{name}_bn1", f"{name}_relu1")
            if position == 1:
                shortcut = _convolution(x, 1, _channels(outer, width), stride, f"{name}_shortcut")
            x = _convolution(x, 1, _channels(inner, width), 1, f"{name}_conv1")
            x = bn_relu(x, f"{name}_bn2", f"{name}_relu2")
            x = _convolution(x, 3, _channels(inner, width), stride, f"{name}_conv2")
            x = bn_relu(x, f"{name}_bn3", f"{name}_relu3")
            x = _convolution(x, 1, _channels(outer, width), 1, f"{name}_conv3")
            x = layers.Add(name=f"conv{stage}" if position == count else f"{name}_sum")([x, shortcut])
    x = bn_relu(x, "post_bn", "post_relu")
    return keras.Model(inputs, x, name="resnet50v2")


def _channels(count: int, width: float) -> int:
    return max(1, round(width * count))


def _convolution(x: keras.KerasTensor, kernel: int, channels: int, stride: int, name: str) -> keras.KerasTensor:
    if kernel > 1:
        x = layers.ZeroPadding2D(kernel // 2, name=f"{name}_pad")(x)
    he = keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")
    return layers.Conv2D(channels, kernel, stride, use_bias=False, kernel_initializer=he, name=name)(x)


def _pool(x: keras.KerasTensor) -> keras.KerasTensor:
    # PyTorch pads with -inf; behind a ReLU zeros give the same maximum. v2 has no ReLU here; TensorFlow's pads zeros.
    x = layers.ZeroPadding2D(1, name="pool1_pad")(x)
    return layers.MaxPooling2D(3, 2, name="pool1")(x)
