import numpy as np
import pytest

from rotnet_keras.backbones import backbone, taps
from rotnet_keras.engine import keras
from rotnet_keras.models import RotNet, first_kernels


def trainable_parameters(model):
    return sum(int(np.prod(v.shape)) for v in model.trainable_variables)


@pytest.mark.parametrize(("blocks", "expected"), [(3, 1_004_484), (4, 1_411_140), (5, 1_817_796)])
def test_nin_with_its_rotation_head_has_the_papers_parameters(blocks, expected):
    assert trainable_parameters(RotNet(backbone("nin", blocks=blocks))) == expected


def test_nin_taps_come_after_the_pools():
    model = backbone("nin", blocks=5)
    shapes = {tap: tuple(model.get_layer(tap).output.shape[1:]) for tap in taps(model)}
    assert shapes == {
        "conv1": (16, 16, 96),
        "conv2": (8, 8, 192),
        "conv3": (8, 8, 192),
        "conv4": (8, 8, 192),
        "conv5": (8, 8, 192),
    }


def test_compact_taps():
    model = backbone("compact", blocks=4)
    shapes = {tap: tuple(model.get_layer(tap).output.shape[1:]) for tap in taps(model)}
    assert shapes == {"conv1": (16, 16, 64), "conv2": (8, 8, 128), "conv3": (4, 4, 128), "conv4": (4, 4, 128)}


def test_alexnet_has_the_released_codes_shapes_and_parameters():
    model = backbone("alexnet", (224, 224, 3))
    names = ("conv1", "pool1", "conv2", "pool2", "conv3", "conv4", "conv5", "pool5", "fc6", "fc7")
    shapes = [tuple(model.get_layer(name).output.shape[1:]) for name in names]
    maps = [(55, 64), (27, 64), (27, 192), (13, 192), (13, 384), (13, 256), (13, 256), (6, 256)]
    assert shapes == [*((side, side, channels) for side, channels in maps), (4096,), (4096,)]
    assert taps(model) == ["conv1", "conv2", "conv3", "conv4", "conv5"]
    assert trainable_parameters(model) + 4 * 4096 + 4 == 57_030_724


def test_width_multiplies_the_channels():
    assert backbone("nin", width=0.5).get_layer("conv1").output.shape[-1] == 48


def pooled(tap, image):
    """What the pool that ends in `tap` makes of a (4, 4) image: the padding and the pool alone."""
    model = backbone("nin", (4, 4, 3))
    pad, pool = model.get_layer(f"block{tap[-1]}_pad"), model.get_layer(tap)
    return np.asarray(pool(pad(image[None, :, :, None].astype(np.float32))))[0, :, :, 0]


def test_max_pool_pads_both_sides_as_pytorch_does():
    image = np.arange(16).reshape(4, 4)
    # Windows of 3 from -1 on, by 2: rows (-1, 0, 1) and (1, 2, 3).
    np.testing.assert_array_equal(pooled("conv1", image), [[5, 7], [13, 15]])


def test_average_pool_counts_the_padding_as_pytorch_does():
    image = np.full((4, 4), 9.0)
    # Of nine places the first window has four in the image, two windows six, the last all nine.
    np.testing.assert_allclose(pooled("conv2", image), [[4, 6], [6, 9]], rtol=1e-6)


def test_batch_normalisation_and_initialisation_are_pytorchs():
    keras.utils.set_random_seed(0)
    model = backbone("nin")
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            gamma = np.asarray(layer.gamma)
            assert (layer.momentum, layer.epsilon) == (0.9, 1e-5)
            assert 0 <= gamma.min() < 0.2 and 0.8 < gamma.max() <= 1
        if isinstance(layer, keras.layers.Conv2D):
            kernel = np.asarray(layer.kernel)
            bound = np.prod(kernel.shape[:3]) ** -0.5
            assert not layer.use_bias
            assert 0.95 * bound < np.abs(kernel).max() <= bound
            np.testing.assert_allclose(kernel.std(), bound / 3**0.5, rtol=0.1)
    first, second = model.get_layer("block3_conv2").kernel, model.get_layer("block3_conv3").kernel
    assert not np.allclose(first, second)


def test_normalisation_is_inside():
    model = backbone("compact", mean=[10, 20, 30], std=[2, 4, 8])
    image = np.full((1, 32, 32, 3), 40, np.uint8)
    normalised = keras.Model(model.input, model.get_layer("normalization").output)(image)
    np.testing.assert_allclose(np.asarray(normalised)[0, 0, 0], [15, 5, 1.25], rtol=1e-6)


def test_first_kernels_are_scaled_by_their_batch_normalisation():
    model = backbone("compact", width=0.25)
    norm = model.get_layer("block1_bn1")
    norm.gamma.assign(np.full(8, 3.0))
    norm.moving_variance.assign(np.full(8, 4.0))
    expected = np.asarray(model.get_layer("block1_conv1").kernel) * 1.5
    np.testing.assert_allclose(first_kernels(model), expected, rtol=1e-4)


def test_unknown_backbone_is_named():
    with pytest.raises(ValueError, match="compact"):
        backbone("nim")
