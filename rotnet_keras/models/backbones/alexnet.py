"""AlexNet: the paper's backbone for ImageNet and Places205."""

from collections.abc import Sequence

from rotnet_keras.engine import keras
from rotnet_keras.models.backbones.blocks import bn_relu, pixels, torch_bias, torch_uniform

layers = keras.layers


def alexnet(
    input_shape: Sequence[int],
    *,
    width: float = 1.0,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    stem: str = "standard",
) -> keras.Model:
    """AlexNet with batch normalisation; without groups, dropout and local normalisation (released code, `AlexNet.py`).

    Args:
        input_shape: (H, W, C) of raw pixels in [0, 255]; (224, 224, 3) in the paper, at least 63 pixels a side.
        width: multiplies every number of channels and units.
        mean, std: of the pixels, for each channel; 127.5 by default.
        stem: "small" gives the first layer kernels of 5 pixels and a stride of 2 instead of 11 and 4, for images of 64
            pixels, at least 29.

    Returns:
        A model whose output is `fc7` (4096). For 224 x 224 inputs the taps are `conv1` (55, 55, 64), `conv2`
        (27, 27, 192), `conv3` (13, 13, 384), `conv4` and `conv5` (13, 13, 256), all before pooling. The other layers
        to read are `pool1` (27, 27, 64), `pool2` (13, 13, 192), `pool5` (6, 6, 256) and `fc6` (4096).
        With the small stem and 64 x 64 inputs the maps have sides of 32, 15, 7, 7 and 7, and `pool5` has 3.
    """
    inputs, x = pixels(input_shape, mean, std)
    x = layers.ZeroPadding2D(2, name="block1_pad")(x)
    first = (5, 64, 2, "valid") if stem == "small" else (11, 64, 4, "valid")
    specs = [first, (5, 192, 1, "same"), (3, 384, 1, "same"), (3, 256, 1, "same"), (3, 256, 1, "same")]
    for block, (kernel, channels, strides, padding) in enumerate(specs, 1):
        x = layers.Conv2D(
            max(1, round(width * channels)),
            kernel,
            strides,
            padding,
            kernel_initializer=torch_uniform(),
            bias_initializer=torch_bias(kernel**2 * x.shape[-1]),
            name=f"block{block}_conv1",
        )(x)
        x = bn_relu(x, f"block{block}_bn1", f"conv{block}", torch_gamma=True)
        if block in (1, 2, 5):
            x = layers.MaxPooling2D(3, 2, name=f"pool{block}")(x)
    x = layers.Flatten(name="flatten")(x)
    for name in ("fc6", "fc7"):
        units = max(1, round(width * 4096))
        x = layers.Dense(units, use_bias=False, kernel_initializer=torch_uniform(), name=f"{name}_dense")(x)
        x = bn_relu(x, f"{name}_bn", name, torch_gamma=True)
    return keras.Model(inputs, x, name="alexnet")
