"""A sample of validation images after each epoch: its points in the plane, its attention maps, its predictions."""

import json
from contextlib import contextmanager

import numpy as np
import pytest
from rotnet_tui.state.sample import Sample, rotated
from support.whole_runs import events_of

from rotnet_keras.config.sections import Augment, Data
from rotnet_keras.data.datasets import load
from rotnet_keras.evaluation.projection import nearest, principal_plane, unit_features
from rotnet_keras.evaluation.sample_images import SampleImages
from rotnet_keras.reports.projections import labels_of, read_attention, read_projection
from rotnet_keras.reports.samples import read_strip
from rotnet_keras.runs.event_fields import event_problem
from rotnet_keras.runs.folder import RunFolder


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


@pytest.mark.long
def test_a_run_writes_what_its_model_makes_of_its_sample(finished):
    """The files of the last epoch agree with the exported models, from the images that lie beside them."""
    from rotnet_keras.engine import keras

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


class Recorder:
    """What `SampleImages` uses of a session: a folder, the events so far, and where events and warnings go."""

    def __init__(self, path):
        self.folder, self.earlier, self.warnings = RunFolder(path), [], []

    @contextmanager
    def timed(self):
        yield {}

    def event(self, kind, **values):
        self.earlier.append({"kind": kind, "time": 0, **values})

    def warn(self, text):
        self.warnings.append(text)


def sample_of(tmp_path, shape, angles, tap="conv1", dtype="uint8", labels=True):
    """A small network of one layer, a data set of 30 images, and what is written of them after an epoch."""
    from rotnet_keras.engine import keras
    from rotnet_keras.models.rotation import rotated_shape
    from rotnet_keras.models.rotnet import RotNet

    file = tmp_path / "a.npz"
    images = np.random.default_rng(0).integers(0, 256, (150, *shape)).astype(dtype)
    if dtype != "uint8":
        images = images * 50 + 300
    np.savez(file, x_train=images, **({"y_train": np.arange(150) % 3} if labels else {}))
    dataset = load(Data(name=str(file), validation=0.2))
    inputs = keras.Input((*rotated_shape(shape, angles), shape[2]))
    scaled = keras.layers.Rescaling(1e-3)(inputs)
    outputs = keras.layers.Conv2D(4, 3, padding="same", name=tap)(scaled)
    model = RotNet(keras.Model(inputs, outputs), angles)
    session = Recorder(tmp_path / "run")
    session.folder.path.mkdir()
    return SampleImages(session, dataset, model, Augment(), 16), session, model


@pytest.mark.parametrize(("shape", "angles", "dtype", "labels", "tap"), [
    ((12, 20, 3), (0, 180), "uint8", True, "conv1"),
    ((16, 16, 1), (0, 45, 90, 135), "uint8", False, "conv1"),
    ((16, 16, 5), (90, 270), "uint16", True, "last"),
])  # fmt: skip
def test_all_kinds_of_images_are_projected(shape, angles, dtype, labels, tap, tmp_path):
    sample, session, _ = sample_of(tmp_path, shape, angles, tap, dtype, labels)
    for step in (1, 2):
        session.event("samples", step=step, **sample.write(step))
    events = [event for event in session.earlier if event["kind"] == "projection"]
    assert all(event_problem(event) is None for event in session.earlier) and not session.warnings
    assert [event["tap"] for event in events] == [tap, tap]
    shown = Sample(session.folder)
    for event in events:
        shown.fetch(event)
    found = shown.projection(events[1])
    assert (found.labels is not None) == labels and found.angles == list(angles)
    assert np.abs(found.points - shown.projection(events[0]).points).max() < 0.005
    image, attention = shown.image(events[1], 29), shown.attention(events[1], 29)
    assert image.height / image.width == pytest.approx(shape[0] / shape[1], rel=0.05)
    assert attention.shape[0] == len(angles) and 0.9 < attention.max() <= 1 and max(attention.shape) <= 8
    assert rotated(image, angles[1], angles).size[0] > 0


def test_features_that_are_no_numbers_are_not_projected(tmp_path):
    sample, session, model = sample_of(tmp_path, (16, 16, 3), (0, 90, 180, 270))
    model.backbone.layers[-1].bias.assign(np.full(4, np.nan))
    assert sample.write(1)["file"] == "step-00000001.png"
    assert not session.earlier and session.warnings == [
        "step 1: features of conv1 are infinite or NaN, and are not projected"
    ]


def test_a_resumed_run_goes_on_with_the_same_points(tmp_path):
    """Another process turns its points towards those in the file of the epoch before."""
    sample, session, model = sample_of(tmp_path, (16, 16, 3), (0, 90, 180, 270))
    for step in (1, 2):
        sample.write(step)
    first, second = (session.folder.samples / f"projection-0000000{step}.json" for step in (1, 2))
    content = second.read_bytes()
    session.earlier = session.earlier[:1]
    SampleImages(session, sample._dataset, model, Augment(), 16).write(2)
    assert second.read_bytes() == content
    values = json.loads(first.read_bytes())
    first.write_text(json.dumps(values | {"points": [[y, -x] for x, y in values["points"]]}))
    session.earlier = session.earlier[:1]
    SampleImages(session, sample._dataset, model, Augment(), 16).write(2)
    turned = read_projection(second).points
    assert turned == pytest.approx(read_projection(first).points, abs=0.005)
