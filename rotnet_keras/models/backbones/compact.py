"""Compact: a small backbone that trains fast on CPUs."""

from collections.abc import Sequence

from rotnet_keras.engine import keras
from rotnet_keras.models.backbones.blocks import conv_bn_relu, pixels

layers = keras.layers


def compact(
    input_shape: Sequence[int],
    *,
    blocks: int = 4,
    width: float = 1.0,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> keras.Model:
    """A small backbone that trains fast on a CPU: 3 x 3 convolutions, early pooling, few channels.

    CPUs are fast at dense convolutions, and slow at the means by which small networks for GPUs save arithmetic:
    depthwise and grouped convolutions, squeeze-and-excite. So each block is convolution, max pool, convolution. The
    first convolution sees detail. The second comes after the pool, costs a quarter, and has twice the channels. A
    32 x 32 image takes 0.07 GFLOP here and 0.5 in a NIN, so this network sees several times as many images in the same
    time. The last block keeps its resolution. It specialises in the pretext task, so that the blocks before it do not;
    their features are the ones to use.

    Args:
        input_shape: (H, W, C) of raw pixels in [0, 255].
        blocks: 2 or more. The first convolution of block i has width * min(32 * 2**(i-1), 128) channels, the second
            as many as the first of block i + 1.
        width: multiplies every number of channels.
        mean, std: of the pixels, for each channel; 127.5 by default.

    Returns:
        A model whose output is the last block's map. For 32 x 32 inputs the taps are `conv1`
        (16, 16, 64), `conv2` (8, 8, 128), `conv3` (4, 4, 128) and, with four blocks, `conv4` (4, 4, 128).
    """
    inputs, x = pixels(input_shape, mean, std)
    for block in range(1, blocks + 1):
        opening, closing = (max(1, round(width * min(32 * 2**doubled, 128))) for doubled in (block - 1, block))
        x = conv_bn_relu(x, 3, opening, f"block{block}", 1, "he_normal")
        if block < blocks:
            x = layers.MaxPooling2D(2, name=f"block{block}_pool")(x)
        x = conv_bn_relu(x, 3, closing, f"block{block}", 2, "he_normal", relu=f"conv{block}")
    return keras.Model(inputs, x, name="compact")
