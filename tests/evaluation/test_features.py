"""Frozen features on disk."""

import numpy as np
import pytest

from rotnet_keras.config.sections import Augment, Data
from rotnet_keras.data.datasets import load
from rotnet_keras.engine import keras
from rotnet_keras.errors import DataError
from rotnet_keras.evaluation.features import extract_features, feature_extractor


def features_of(scale, tiny_data, folder, inside=None):
    """(images, their features, warnings) of a backbone that multiplies its pixels."""
    split = load(Data(name=str(tiny_data))).test
    inputs = keras.Input(split.images(slice(0, 1)).shape[1:])
    backbone = keras.Model(inputs, keras.layers.Rescaling(scale, name="conv1")(inputs))
    warnings = []
    extractor = feature_extractor(backbone, ["conv1"])
    progress = lambda what, done, total: None  # noqa: E731
    features = extract_features(
        extractor, split, Augment(), folder / "features", progress, "features", None, warnings.append, inside
    )
    return split.images(slice(None)).astype(np.float32), features["conv1"], warnings


def test_features_beyond_float16_are_clipped_with_a_warning_that_counts_them(tiny_data, tmp_path):
    images, features, warnings = features_of(-400.0, tiny_data, tmp_path)
    assert features.dtype == np.float16
    expected = np.maximum(-400 * images, -65504.0)
    np.testing.assert_array_equal(features, expected.astype(np.float16))
    count = int((expected == -65504).sum())
    assert 0 < count < images.size
    (warning,) = warnings
    assert f"{count:,} of {images.size:,} values of conv1 are clipped to ±65504" in warning


def test_features_within_float16_are_stored_without_a_word(tiny_data, tmp_path):
    images, features, warnings = features_of(256.0, tiny_data, tmp_path)
    np.testing.assert_array_equal(features, 256 * images)
    assert not warnings


def test_features_that_are_nan_are_refused(tiny_data, tmp_path):
    with pytest.raises(DataError, match="features of conv1 are NaN"):
        features_of(float("nan"), tiny_data, tmp_path)


def test_features_are_an_array_on_disk(tiny_data, tmp_path):
    _, features, _ = features_of(2.0, tiny_data, tmp_path)
    (file,) = (tmp_path / "features").iterdir()
    features.flush()
    np.testing.assert_array_equal(np.load(file), features)


@pytest.mark.parametrize("name", ["features", "features/conv1.npy"])
def test_features_are_not_written_behind_a_link(tiny_data, tmp_path, name):
    run, mine = tmp_path / "run", tmp_path / "home" / "mine"
    for path in (run, mine.parent):
        path.mkdir()
    mine.write_text("mine")
    link = run / name
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(mine if link.suffix else mine.parent)
    with pytest.raises(OSError, match=r"not a folder of its own|File exists"):
        features_of(1.0, tiny_data, run, run)
    assert mine.read_text() == "mine" and list(mine.parent.iterdir()) == [mine]
