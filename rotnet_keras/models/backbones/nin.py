"""Network in Network (NIN): the paper's backbone for CIFAR-10."""

from collections.abc import Sequence

from rotnet_keras.engine import keras
from rotnet_keras.models.backbones.blocks import conv_bn_relu, pixels, torch_uniform

layers = keras.layers


def nin(
    input_shape: Sequence[int],
    *,
    blocks: int = 4,
    width: float = 1.0,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    pool3: bool = False,
) -> keras.Model:
    """Network in Network, as the paper uses it on CIFAR-10 (released code, `NetworkInNetwork.py`).

    Args:
        input_shape: (H, W, C) of raw pixels in [0, 255].
        blocks: 2 or more; each has three convolutions. The paper compares 3, 4 and 5.
        width: multiplies every number of channels (192, 160 and 96 at 1.0).
        mean, std: of the pixels, for each channel; 127.5 by default.
        pool3: end the third of four or more blocks in an average pool, as the released code's `use_avg_on_conv3` does.
            The released configurations of RotNet set it off.

    Returns:
        A model whose output is the last block's map. For 32 x 32 inputs the taps are `conv1`
        (16, 16, 96) and `conv2` (8, 8, 192), both after their pool, and `conv3` ... (8, 8, 192).
    """
    wide, middle, narrow = (max(1, round(width * n)) for n in (192, 160, 96))
    inputs, x = pixels(input_shape, mean, std)

    x = _nin_convolutions(x, 1, [(5, wide), (1, middle), (1, narrow)])
    # PyTorch pads with -inf; behind a ReLU zeros give the same maximum.
    x = layers.ZeroPadding2D(1, name="block1_pad")(x)
    x = layers.MaxPooling2D(3, 2, name="conv1")(x)

    x = _nin_convolutions(x, 2, [(5, wide), (1, wide), (1, wide)])
    # PyTorch's average includes the padded zeros, unlike `padding="same"`.
    x = layers.ZeroPadding2D(1, name="block2_pad")(x)
    x = layers.AveragePooling2D(3, 2, name="conv2")(x)

    for block in range(3, blocks + 1):
        pooled = pool3 and block == 3 < blocks
        x = _nin_convolutions(x, block, [(3, wide), (1, wide), (1, wide)], None if pooled else f"conv{block}")
        if pooled:
            x = layers.ZeroPadding2D(1, name="block3_pad")(x)
            x = layers.AveragePooling2D(3, 2, name="conv3")(x)
    return keras.Model(inputs, x, name="nin")


def _nin_convolutions(
    x: keras.KerasTensor, block: int, specs: Sequence[tuple[int, int]], last_relu: str | None = None
) -> keras.KerasTensor:
    for position, (kernel, channels) in enumerate(specs, 1):
        relu = last_relu if position == len(specs) else None
        x = conv_bn_relu(x, kernel, channels, f"block{block}", position, torch_uniform, relu, torch_gamma=True)
    return x
