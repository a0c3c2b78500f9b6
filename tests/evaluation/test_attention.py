"""Attention maps and how well they rotate with the image."""

import numpy as np
import pytest

from rotnet_keras.engine import keras
from rotnet_keras.evaluation.attention import attention_maps, equivariance_scores, rotated_attention_maps


def test_a_map_is_the_sum_of_powers_scaled_to_one():
    features = np.zeros((2, 2, 2, 3))
    features[0, 0, 0] = [1, 2, 3]
    features[0, 0, 1] = [2, -5, 0]
    features[0, 1, 1] = [0, 1, 1]
    np.testing.assert_allclose(attention_maps(features, 1)[0], [[1, 2 / 6], [0, 2 / 6]])
    np.testing.assert_allclose(attention_maps(features, 2)[0], [[1, 4 / 14], [0, 2 / 14]])
    np.testing.assert_allclose(attention_maps(features, 4)[0], [[1, 16 / 98], [0, 2 / 98]])
    assert (attention_maps(features, 2)[1] == 0).all()


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3)).astype(np.uint8)


def model_of(kernel):
    pixels = keras.Input((8, 8, 3))
    convolution = keras.layers.Conv2D(1, 3, padding="same", use_bias=False, name="conv1")
    model = keras.Model(pixels, convolution(pixels))
    convolution.set_weights([np.repeat(np.asarray(kernel, np.float32)[:, :, None, None], 3, axis=2)])
    return model


def test_maps_of_a_symmetric_filter_rotate_with_the_image(images):
    maps = rotated_attention_maps(model_of([[1, 2, 1], [2, 4, 2], [1, 2, 1]]), "conv1", images, 2)
    assert maps.shape == (5, 4, 8, 8)
    for k in range(4):
        np.testing.assert_allclose(maps[:, k], np.rot90(maps[:, 0], k, (1, 2)), atol=1e-6)
    np.testing.assert_allclose(equivariance_scores(maps), 1, atol=1e-6)


def test_maps_of_an_upright_filter_do_not(images):
    scores = equivariance_scores(
        rotated_attention_maps(model_of([[1, 1, 1], [0, 0, 0], [-1, -1, -1]]), "conv1", images, 1)
    )
    assert scores.shape == (5,) and (np.abs(scores) < 0.8).all()
    assert (equivariance_scores(np.zeros((2, 4, 3, 3))) == 0).all()
