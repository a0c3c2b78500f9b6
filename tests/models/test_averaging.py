"""Features and predictions averaged over views of an image."""

import numpy as np
import pytest

from rotnet_keras.engine import keras
from rotnet_keras.evaluation.features import feature_extractor
from rotnet_keras.models.averaging import averaged
from rotnet_keras.models.backbones.registry import backbone
from rotnet_keras.models.export import load_backbone, save_model, with_softmax


@pytest.fixture(scope="module")
def compact():
    return backbone("compact", (16, 16, 3), width=0.125, blocks=2)


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3)).astype(np.float32)


def test_maps_of_mirror_images_are_averaged_where_they_are(compact, images):
    extractor = feature_extractor(compact, ["conv1", "conv1+conv2"])
    # In a graph, as everywhere: its names are stricter.
    plain, both = extractor(images), averaged(extractor, "mirror").predict(images, verbose=0)
    mirrored = extractor(images[:, :, ::-1])
    for tap, found in both.items():
        np.testing.assert_allclose(found, (plain[tap] + np.asarray(mirrored[tap])[:, :, ::-1]) / 2, atol=1e-5)
    assert np.abs(np.asarray(both["conv1"]) - plain["conv1"]).max() > 0.01
    # The features of an image and of its mirror image are mirror images.
    other = averaged(extractor, "mirror")(images[:, :, ::-1])
    np.testing.assert_allclose(np.asarray(other["conv1"])[:, :, ::-1], both["conv1"], atol=1e-5)
    assert averaged(extractor, "none") is extractor


def test_crops_are_shifted_by_an_eighth_of_a_side_and_mirrored(images):
    inputs = keras.Input((16, 16, 3))
    pixels = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(keras.layers.Cropping2D(7)(inputs)))
    shifts = [(0, 0), (-2, 0), (2, 0), (0, -2), (0, 2)]
    # The two central columns stay the same set when mirrored, about the middle of each crop.
    crops = [images[:, 7 + down : 9 + down, 7 + right : 9 + right] for down, right in shifts]
    expected = np.mean([crop.mean((1, 2)) for crop in crops], axis=0)
    np.testing.assert_allclose(averaged(pixels, "crops")(images), expected, rtol=1e-5)


@pytest.mark.parametrize("over", ["mirror", "crops"])
def test_a_classifier_that_averages_is_exported_with_stock_layers(compact, images, tmp_path, over):
    features = averaged(keras.Model(compact.input, compact.get_layer("conv2").output), over)
    head = keras.Sequential([keras.Input(features.output.shape[1:]), keras.layers.Flatten(), keras.layers.Dense(3)])
    model = with_softmax(features, head, "classifier")
    save_model(model, tmp_path / "classifier.keras")
    (tmp_path / "copy.keras").write_bytes((tmp_path / "classifier.keras").read_bytes() + b"x")
    found = load_backbone(tmp_path / "copy.keras")(images)
    np.testing.assert_allclose(found, model(images), atol=1e-6)
    # Flattened maps tell left from right, and an image averaged with its mirror image does not.
    pooled = keras.Sequential([keras.Input(features.output.shape[1:]), keras.layers.GlobalAveragePooling2D()])
    np.testing.assert_allclose(pooled(features(images)), pooled(features(images[:, :, ::-1])), atol=1e-5)
