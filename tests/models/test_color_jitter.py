import colorsys

import numpy as np
import pytest

from rotnet_keras.config.sections import Augment
from rotnet_keras.engine import keras, tf
from rotnet_keras.models.backbones.registry import backbone
from rotnet_keras.models.color_jitter import color_jitter
from rotnet_keras.models.rotnet import RotNet, softmax_loss

SEED = tf.constant([1, 2], tf.int64)


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(60, 190, (64, 4, 4, 3), np.uint8)


def test_the_jitter_is_a_function_of_the_seed(images):
    once, again = (np.asarray(color_jitter(images, SEED, 0.4, 0.2)) for _ in range(2))
    other = np.asarray(color_jitter(images, SEED + 1, 0.4, 0.2))
    np.testing.assert_array_equal(once, again)
    assert not np.array_equal(once, other)
    assert once.dtype == np.float32 and once.min() >= 0 and once.max() <= 255
    np.testing.assert_allclose(color_jitter(images, SEED, 0.0, 0.0), images, atol=1e-2)


def test_the_requested_share_of_images_becomes_grey_with_the_same_luma(images):
    grey = np.asarray(color_jitter(images, SEED, 0.0, 0.25))
    lost = np.ptp(grey, axis=-1).max((1, 2)) < 1e-3
    assert 6 <= lost.sum() <= 26
    luma = images[lost] @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(grey[lost][..., 0], luma, rtol=1e-3)
    np.testing.assert_allclose(grey[~lost], images[~lost], atol=1e-2)


def test_brightness_is_multiplied_and_hue_rotated():
    """Of one flat colour contrast and saturation leave the hue, brightness all but the value."""
    flat = np.full((200, 2, 2, 3), (160, 100, 100), np.uint8)
    changed = np.asarray(color_jitter(flat, SEED, 0.4, 0.0))[:, 0, 0]
    luma = changed @ np.array([0.299, 0.587, 0.114])
    assert 0.6 * 117.9 < luma.min() < 0.65 * 117.9 and 1.35 * 117.9 < luma.max() < 1.4 * 117.94
    hues = np.array([colorsys.rgb_to_hsv(*pixel)[0] for pixel in changed])
    turned = np.minimum(hues, 1 - hues)
    # Up to a tenth of a circle about the grey axis, which HSV's hexagon stretches here and there.
    assert 0.08 < turned.max() < 0.16


def test_images_without_colours_keep_their_channels():
    spectra = np.random.default_rng(0).integers(60, 190, (3, 4, 4, 5), np.uint8)
    assert color_jitter(spectra, SEED, 0.4, 0.5).shape == (3, 4, 4, 5)


def test_all_copies_of_an_image_have_the_same_colours():
    model = RotNet(backbone("compact", (8, 8, 3), blocks=2, width=0.25), augment=Augment(jitter=0.8, greyscale=0.3))
    model.compile("sgd", softmax_loss())
    flat = np.full((6, 8, 8, 3), (200, 120, 60), np.uint8)
    inputs, labels = model.training_inputs(flat)
    np.testing.assert_array_equal(np.reshape(labels, (4, 6))[:, 0], [0, 1, 2, 3])
    colours = np.asarray(inputs)[:, 0, 0].reshape(4, 6, 3)
    np.testing.assert_array_equal(colours, colours[:1].repeat(4, axis=0))
    assert len(np.unique(colours[0].round(2), axis=0)) == 6
    model.fit(flat, batch_size=6, verbose=0)
    assert not np.array_equal(np.asarray(model.training_inputs(flat)[0]), np.asarray(inputs))


def test_a_head_may_have_hidden_layers():
    model = RotNet(backbone("compact", (8, 8, 3), blocks=2, width=0.25), hidden=[16, 8])
    channels = model.backbone.output.shape[-1]
    assert model.head.count_params() == channels * 16 + 4 * 16 + 16 * 8 + 4 * 8 + 8 * 4 + 4
    assert isinstance(model.head, keras.Model) and model(np.zeros((2, 8, 8, 3))).shape == (2, 4)
