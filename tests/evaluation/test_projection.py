"""A sample of validation images after each epoch: its points in the plane, its attention maps, its predictions."""

import numpy as np
import pytest
from support.whole_runs import events_of

from rotnet_keras.evaluation.projection import nearest, principal_plane, unit_features
from rotnet_keras.reports.projections import labels_of, read_attention, read_projection
from rotnet_keras.reports.samples import read_strip


def clusters(seed=0):
    """Features of three clusters in eight dimensions, of length 1."""
    rng = np.random.default_rng(seed)
    centres = np.repeat(rng.normal(size=(3, 8)), 10, axis=0)
    return unit_features(centres + 0.1 * rng.normal(size=(30, 8)))


def test_the_plane_holds_the_variance_of_two_components():
    features = clusters()
    points = principal_plane(features)
    centred = features - features.mean(0)
    variances = np.linalg.svd(centred, compute_uv=False)[:2] ** 2
    assert (points**2).sum(0) / (points**2).sum() == pytest.approx(variances / variances.sum(), abs=0.05)
    radii = np.linalg.norm(points, axis=1)
    assert radii.max() <= 1 + 1e-9 and (radii > 0.999).sum() >= 2
    assert principal_plane(np.zeros((5, 8))).tolist() == np.zeros((5, 2)).tolist()
    assert principal_plane(np.ones((1, 3))).shape == (1, 2) and principal_plane(np.eye(3)[:, :1]).shape == (3, 2)


def test_points_do_not_jump_between_epochs():
    """A later epoch whose components have other signs, in the other order, lies where the earlier one did."""
    features = clusters()
    first = principal_plane(features)
    rng = np.random.default_rng(1)
    # The same features in another basis: the components come out with signs of their own.
    basis, _ = np.linalg.qr(rng.normal(size=(8, 8)))
    assert principal_plane(features @ basis, first) == pytest.approx(first, abs=1e-6)
    assert principal_plane(-features, first) == pytest.approx(first, abs=1e-6)
    for turned in (first[:, ::-1], -first, first * [1, -1]):
        assert principal_plane(features, turned) == pytest.approx(turned, abs=1e-6)
    moved = unit_features(features + 0.02 * rng.normal(size=features.shape))
    assert np.abs(principal_plane(moved, first) - first).max() < 0.3


def test_the_nearest_are_the_most_similar():
    features = clusters()
    neighbours, similarities = nearest(features, 4)
    assert (neighbours // 10 == np.arange(30)[:, None] // 10).all()
    assert (neighbours != np.arange(30)[:, None]).all() and (np.diff(similarities) <= 0).all()
    assert similarities[3, 0] == pytest.approx(features[3] @ features[neighbours[3, 0]])
    assert nearest(features[:1], 4)[0].shape == (1, 0)


def test_names_of_classes():
    assert labels_of(np.array([1, -1, 0]), ["a", "b"]) == ["b", "", "a"]
    assert labels_of(None, []) is labels_of(np.array([-1]), ["a"]) is labels_of(np.ones((2, 3), int), ["a"]) is None


def test_a_run_writes_what_its_model_makes_of_its_sample(finished):
    """The files of the last epoch agree with the exported models, from the images that lie beside them."""
    from rotnet_keras.engine import keras, tf

    _, run = finished
    events = events_of(run, "projection")
    assert [e["step"] for e in events] == [e["step"] for e in events_of(run, "samples")] == [10, 20, 30]
    last = events[-1]
    found = read_projection(run.samples / last["file"])
    assert last["tap"] == "conv1" and last["count"] == len(found.points) == len(found.labels) == 40
    strip = np.asarray(read_strip(run.samples / last["images"]).convert("RGB"))
    images = np.stack(np.split(strip, 40, axis=1))
    rotnet = keras.models.load_model(run.export / "rotnet.keras")
    by_angle = [np.asarray(rotnet(np.rot90(images, k, (1, 2)))) for k in range(4)]
    assert np.abs(np.stack(by_angle, 1) - found.probabilities).max() < 0.006
    backbone = keras.models.load_model(run.backbone)
    tap = keras.Model(backbone.input, backbone.get_layer("conv1").output)
    maps = np.asarray(tap(images), np.float64)
    features = unit_features(maps.mean((1, 2)))
    _, similarities = nearest(features, 5)
    assert np.abs(similarities - found.similarities).max() < 0.006
    # Some images are equally similar: their order may be another one.
    of_found = (features[:, None] * features[found.neighbours]).sum(-1)
    assert np.abs(similarities - of_found).max() < 1e-4
    squares = (np.maximum(maps, 0) ** 2).sum(-1)
    attention = read_attention(run.samples / last["attention"], 40, 4)
    assert attention.shape[2:] == tuple(min(8, side) for side in squares.shape[1:])
    if attention.shape[2:] == squares.shape[1:]:
        assert np.abs(attention[:, 0] / 255 - squares / squares.max((1, 2), keepdims=True)).max() < 0.02
    # The rotated images' maps are those of the rotated images, and differ from the upright ones'.
    assert (attention[:, 1] != attention[:, 0]).any()
    tiles = events_of(run, "samples")[-1]["tiles"]
    assert [tile["image"] for tile in tiles[:24]] == list(range(24)) and len(tiles) == 32
    for tile in tiles:
        row = found.probabilities[tile["image"], tile["angle"] // 90]
        assert tile["probability"] == pytest.approx(row.max(), abs=0.006)
    size = sum((run.samples / last[key]).stat().st_size for key in ("file", "attention"))
    assert size < 20_000
    tf.keras.backend.clear_session()
