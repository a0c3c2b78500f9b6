"""The backbone `airbench` and the whitening of its first layer."""

import numpy as np
import pytest
from support.command_line import invoke

from rotnet_keras.config.sections import Backbone
from rotnet_keras.data.stores import Split
from rotnet_keras.engine import keras
from rotnet_keras.evaluation.features import random_backbone
from rotnet_keras.models.backbones.airbench import WHITENING, whiten
from rotnet_keras.models.backbones.registry import backbone, build_backbone


def photos(count, side=16):
    """Smooth images: what neighbouring pixels have in common is what whitening removes."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (count, side // 4, side // 4, 3)).astype(np.float32)
    large = small.repeat(4, axis=1).repeat(4, axis=2)
    return np.clip(large + rng.normal(0, 8, large.shape), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def whitened():
    images = photos(400)
    model = backbone("airbench", (16, 16, 3), width=0.25, mean=[120.0] * 3, std=[70.0] * 3)
    whiten(model, Split(images, np.arange(400), None), seed=1)
    return model, images


def test_outputs_of_the_whitening_are_uncorrelated_and_of_unit_variance(whitened):
    model, images = whitened
    normalised = np.asarray(model.get_layer("normalization")(images.astype(np.float32)))
    outputs = np.asarray(model.get_layer(WHITENING)(normalised))[:, :-1, :-1].reshape(-1, 24)
    np.testing.assert_allclose(outputs[:, :12], -outputs[:, 12:], atol=1e-4)
    covariance = np.cov(outputs[:, :12], rowvar=False)
    np.testing.assert_allclose(covariance, np.eye(12), atol=0.15)
    # Neighbours in the images, unlike outputs, are correlated.
    assert np.corrcoef(normalised[:, :, :-1].ravel(), normalised[:, :, 1:].ravel())[0, 1] > 0.5


def test_the_whitening_is_a_function_of_images_and_seed_and_is_not_trained(whitened):
    model, images = whitened
    again = backbone("airbench", (16, 16, 3), width=0.25, mean=[120.0] * 3, std=[70.0] * 3)
    whiten(again, Split(images, np.arange(400), None), seed=1)
    kernel = model.get_layer(WHITENING).get_weights()[0]
    np.testing.assert_array_equal(again.get_layer(WHITENING).get_weights()[0], kernel)
    assert all(WHITENING not in variable.path for variable in model.trainable_variables)
    # Pretraining did not make it, so the baseline of random weights has it too.
    baseline = random_backbone(model, 5)
    np.testing.assert_array_equal(baseline.get_layer(WHITENING).get_weights()[0], kernel)
    first = "block1_conv1"
    assert (baseline.get_layer(first).get_weights()[0] != model.get_layer(first).get_weights()[0]).any()


def test_large_images_are_whitened_from_fewer_of_them():
    read = []

    class Store:
        def __getitem__(self, rows):
            read.append(len(rows))
            return np.random.default_rng(0).integers(0, 256, (len(rows), 256, 256, 1), dtype=np.uint8)

    model = backbone("airbench", (256, 256, 1), width=0.25, blocks=4)
    whiten(model, Split(Store(), np.arange(9000), None), seed=0)
    assert read == [78]
    assert model.get_layer(WHITENING).get_weights()[0].shape == (2, 2, 1, 8)
    assert model.get_layer("conv4").output.shape[1:] == (16, 16, 32)


def test_an_activation_that_is_no_relu_keeps_negative_features(whitened):
    plain, images = whitened
    spec = Backbone(name="airbench", width=0.25, activation="silu")
    model = build_backbone(spec, (16, 16, 3), [120.0] * 3, [70.0] * 3)
    model.set_weights(plain.get_weights())
    for tap in ("conv1", "conv2", "conv3"):
        smallest = [
            np.min(keras.Model(net.input, net.get_layer(tap).output)(images[:20], training=True))
            for net in (plain, model)
        ]
        # The least value of x / (1 + exp(-x)) is -0.278.
        assert smallest[0] == 0 and smallest[1] == pytest.approx(-0.278, abs=2e-3), tap
    assert model.get_layer("block1_relu0").activation is keras.activations.relu
    with pytest.raises(ValueError, match="activation: 'compact' has 'relu' only; leave activation out"):
        Backbone(name="compact", activation="silu")
    result = invoke("show", "cifar_cpu", "backbone.activation=elu")
    assert result.returncode == 2 and "backbone.activation" in result.stderr and "'silu'" in result.stderr


def test_other_backbones_stay_as_they_are():
    model = backbone("compact", (16, 16, 3), width=0.25)
    before = model.get_weights()
    whiten(model, Split(photos(4), np.arange(4), None), seed=0)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_transfer_from_scratch_is_refused(tmp_path):
    result = invoke("show", "voc12_segmentation", "backbone.name=airbench")
    assert result.returncode == 2 and "the first layer of 'airbench' is computed from images" in result.stderr
