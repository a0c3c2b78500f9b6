"""Transfer to detection, and the parts of the detectors."""

from dataclasses import replace
from types import SimpleNamespace

import keras_cv
import numpy as np
import pytest
from support.command_line import invoke, run_python
from support.precision import needs_bfloat16
from support.voc_kit import COLOURS, make_kit
from support.whole_runs import events_of, start

from rotnet_keras.config.loading import load_recipe
from rotnet_keras.data import letterbox
from rotnet_keras.data.annotations import load_annotated
from rotnet_keras.engine import keras, tf
from rotnet_keras.errors import DataError, RecipeError
from rotnet_keras.models.backbones.registry import backbone
from rotnet_keras.models.detectors.anchor_matching import intersection_over_union, match, sample_balanced, smooth_l1
from rotnet_keras.models.detectors.base import NO_OBJECT
from rotnet_keras.models.detectors.boxes import RATIOS, decode_boxes, encode_boxes, make_anchors, roi_align
from rotnet_keras.models.detectors.fast_rcnn import FastRCNN
from rotnet_keras.models.detectors.faster_rcnn import FasterRCNN
from rotnet_keras.models.detectors.regions import split_backbone
from rotnet_keras.models.detectors.retinanet import RetinaNet, pyramid_trunk
from rotnet_keras.models.step_dropout import StepDropout
from rotnet_keras.runs import launch
from rotnet_keras.tasks.voc import proposals
from rotnet_keras.tasks.voc.common import scale_learning_rates
from rotnet_keras.tasks.voc.detection import DetectorTrainer, build_detector, letterboxed_batch
from rotnet_keras.training.optimizers import build_optimizer

RECIPE = """\
kind = "transfer"
task = "detection"
title = "tiny detection"
taps = ["conv2"]
cells = 6

[data]
name = "{kit}"
classes = {classes}
splits = {{ train = "train+val", test = "train+val" }}

[canvas]
side = 48

[backbone]
name = "compact"
blocks = 3
width = 0.5

[optimizer]
learning_rate = 0.1
clip = 10.0

[schedule]
name = "cosine"

[train]
steps = 160
batch = 5
precision = "float32"
"""
RETINANET = RECIPE.replace(
    'taps = ["conv2"]\ncells = 6', 'detector = "retinanet"\ntaps = ["conv1", "conv2", "conv3"]'
).replace("blocks = 3", "blocks = 4")
FAST_RCNN = RECIPE.replace('taps = ["conv2"]', 'detector = "fast_rcnn"\nproposals = 60\ntaps = ["conv2"]')


@pytest.fixture(scope="module")
def kit(tmp_path_factory):
    return make_kit(tmp_path_factory.mktemp("kit"), 20)


def learned(recipe, text, kit, *overrides):
    """Run a recipe; return the run and its test event."""
    recipe.write_text(text.format(kit=kit, classes=list(COLOURS)))
    result, run = start(recipe, *overrides)
    assert result.returncode == 0, run.log.read_text()
    (test,) = events_of(run, "test")
    assert test["score"] == pytest.approx(np.mean(test["per_class"]))
    return run, test


def predicted_by_export(kit, run):
    """Return what the exported model predicts for the first image: class, top, left, bottom, right.

    Of Fast R-CNN, for regions that are the whole image and nine parts of it.
    """
    code = """
import sys, keras, keras_cv, numpy as np
from PIL import Image
model = keras.models.load_model(sys.argv[1])
several = isinstance(model.input, dict)
side = (model.input["pixels"] if several else model.input).shape[1]
canvas = np.full((1, side, side, 3), (124, 116, 104), np.float32)
canvas[0, :side * 40 // 48] = np.asarray(Image.open(sys.argv[2]).resize((side, side * 40 // 48)))
if several:
    regions = np.zeros((1, model.input["regions"].shape[1], 4), np.float32)
    parts = [(y, x, y + 20, x + 24) for y in (0, 10, 20) for x in (0, 12, 24)]
    regions[0, :10] = np.array([(0, 0, 40, 48), *parts]) * side / 48
    canvas = {"pixels": canvas, "regions": regions}
found = model.predict(canvas, verbose=0)
for box, number, confidence in zip(found["boxes"][0], found["classes"][0], found["confidence"][0]):
    if confidence > 0.5:
        print(int(number), *(box * 48 / side))
assert not any("rotnet" in name for name in sys.modules)
print("loaded")
"""
    picture = kit / "JPEGImages" / "000000.jpg"
    *rows, last = [line.split() for line in run_python(code, run.export / "detector.keras", picture).splitlines()]
    assert last == ["loaded"]
    return [[float(value) for value in row] for row in rows]


@needs_bfloat16
@pytest.mark.long
@pytest.mark.parametrize("text", [pytest.param(RECIPE, id="faster_rcnn"), pytest.param(FAST_RCNN, id="fast_rcnn")])
def test_a_detector_trains_reports_and_exports(text, kit, tmp_path):
    # In 16 bits too: layers of keras-cv that make others do not work there.
    run, test = learned(tmp_path / "detection.toml", text, kit, "train.steps=16", "train.precision=mixed_bfloat16")
    assert 0 <= test["score_coco"] <= test["score"] < 1
    losses = [event["loss"] for event in events_of(run, "step")]
    assert losses[-1] < 0.7 * losses[0]
    report = (run.path / "report.md").read_text()
    assert "**Mean average precision, %**" in report and "![Test images](figures/pictures.png)" in report
    assert f"mean over ten IoU thresholds, as in COCO | {100 * test['score_coco']:.1f}" in report
    predicted_by_export(kit, run)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "overrides"),
    [
        pytest.param(RECIPE, ["train.steps=320"], id="faster_rcnn"),
        pytest.param(FAST_RCNN, ["train.steps=320"], id="fast_rcnn"),
        pytest.param(RETINANET, ["optimizer.learning_rate=0.02", "train.steps=120"], id="retinanet"),
    ],
)
def test_a_detector_overfits_twenty_images_and_its_export_finds_their_objects(text, overrides, kit, tmp_path):
    run, test = learned(tmp_path / "detection.toml", text, kit, *overrides)
    assert test["score"] > 0.9 and test["score_area"] > 0.9 and test["score_coco"] > 0.4
    outline = (kit / "Annotations" / "000000.xml").read_text()
    (name,) = [name for name in COLOURS if f"<name>{name}</name>" in outline]
    ((number, *box),) = predicted_by_export(kit, run)
    assert list(COLOURS)[int(number)] == name
    left, top, right, bottom = (
        int(outline.split(f"<{side}>")[1].split("<")[0]) for side in ("xmin", "ymin", "xmax", "ymax")
    )
    assert box == pytest.approx([top - 1, left - 1, bottom, right], abs=4)


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("detector=retinanet", "taps: expected 3 layers for 'retinanet', got 1"),
        ("train.label_smoothing=0.1", "train: this task has no label smoothing"),
        ("taps=[]", "taps: "),
        ("proposals=100", "proposals: only 'fast_rcnn' has them"),
    ],
)
def test_recipes_that_a_detector_cannot_follow_are_refused(tmp_path, override, complaint):
    (tmp_path / "recipe.toml").write_text(RECIPE.format(kit=".", classes=["a"]))
    result = invoke("run", "recipe.toml", override, cwd=tmp_path)
    assert result.returncode == 2 and complaint in result.stderr, result.stderr


def test_anchors_equal_those_of_keras_cv():
    expected = keras_cv.layers.AnchorGenerator("yxyx", [16.0], [1.0, 2.0], list(RATIOS), [4])(image_shape=(24, 32, 3))
    assert make_anchors((6, 8), 4, [16, 32], RATIOS).boxes() == pytest.approx(np.asarray(expected[0]), rel=1e-5)


@pytest.mark.parametrize("cells", [(2, 3), (3, 3), (1, 1), (6, 3)])
def test_decoding_inverts_encoding_in_a_graph_and_eagerly(cells):
    anchors = make_anchors(cells, 8, [8, 16], RATIOS)
    boxes = np.array([[3.0, 1.0, 9.0, 14.0]], np.float32)
    offsets = np.asarray(encode_boxes(tf.constant(anchors.boxes()), tf.constant(boxes)))
    answers = offsets.reshape(1, *cells, -1)
    inputs = keras.Input(answers.shape[1:])
    for found in (anchors.decode(tf.constant(answers)), keras.Model(inputs, anchors.decode(inputs))(answers)):
        assert np.asarray(found)[0] == pytest.approx(np.tile(boxes, (len(anchors), 1)), abs=1e-3)
    assert np.asarray(decode_boxes(anchors.boxes(), offsets)) == pytest.approx(
        np.tile(boxes, (len(anchors), 1)), abs=1e-3
    )


def test_roi_align_of_a_coordinate_map_gives_the_coordinates_in_the_boxes():
    rows, columns = np.meshgrid(np.arange(8.0), np.arange(6.0), indexing="ij")
    places = 4 * np.stack([rows, columns], axis=-1)[None].astype(np.float32) + 2
    boxes = np.array([[[8, 4, 24, 20], [10, 10, 14, 22]]], np.float32)
    found = np.asarray(roi_align(places, boxes, 4, 4))
    assert found.shape == (1, 2, 4, 4, 2)
    assert found[0, 0, :, 2, 0].tolist() == [10, 14, 18, 22] and found[0, 0, 1, :, 1].tolist() == [6, 10, 14, 18]
    assert found[0, 1, :, 0, 0] == pytest.approx([10.5, 11.5, 12.5, 13.5])
    # Beyond the middle of the last cell there is nothing to go by.
    edge = np.asarray(roi_align(places, np.array([[[0, 0, 32, 24]]], np.float32), 8, 4))
    assert edge[0, 0, :, 0, 0] == pytest.approx([2.5, *range(6, 30, 4), 29.5])


def test_boxes_are_matched_to_the_object_of_highest_iou():
    objects = tf.constant([[[0.0, 0, 10, 10], [20, 20, 40, 40], [0, 0, 0, 0]]])
    boxes = tf.constant([[[0.0, 0, 10, 10], [0, 0, 10, 5], [22, 20, 40, 40], [50, 50, 60, 60], [-1, -1, -1, -1]]])
    overlaps = np.asarray(intersection_over_union(boxes, objects))[0]
    assert overlaps == pytest.approx(np.array([[1, 0, 0], [0.5, 0, 0], [0, 0.9, 0], [0, 0, 0], [0, 0, 0]]))
    matches = match(boxes, objects)
    assert np.asarray(matches.ious)[0] == pytest.approx([1, 0.5, 0.9, 0, -1])
    assert np.asarray(matches.objects)[0, :3].tolist() == [0, 0, 1]
    assert np.asarray(matches.best_anchors)[0].tolist() == [True, False, True, False, False]


def test_sampled_boxes_have_the_asked_number_and_at_most_the_share_of_positives():
    right = np.arange(100)[None] < 40
    wrong = np.arange(100)[None] >= 60
    draws = np.random.default_rng(0).random((1, 100)).astype(np.float32)
    counted = np.asarray(sample_balanced(right, wrong, 20, 0.25, draws))
    assert (counted & right).sum() == 5 and (counted & wrong).sum() == 15
    assert draws[counted & right].max() < draws[right & ~counted].min()
    few = np.asarray(sample_balanced(np.arange(100)[None] < 2, wrong, 20, 0.25, draws))
    assert few[:, :2].all() and few.sum() == 20
    assert not np.asarray(sample_balanced(right, wrong, 20, 0.25, draws))[0, 40:60].any()


def test_smooth_l1_is_quadratic_near_zero_and_linear_beyond():
    assert np.asarray(smooth_l1(tf.constant([[0.5, 0.0], [-3.0, 1.0]]), 1.0)).tolist() == [0.125, 3.0]


def test_an_image_without_objects_has_a_finite_loss():
    network = RetinaNet(backbone("compact", (64, 64, 3), width=0.25), ["conv1", "conv2", "conv3"], 3, 64, 2, 0)
    pixels = np.zeros((2, 64, 64, 3), np.uint8)
    nothing = [0, 0, 0, 0, NO_OBJECT]
    loss, accuracy = network.loss_and_accuracy(
        pixels, np.array([[nothing] * 2, [[8, 8, 40, 40, 2], nothing]], np.float32)
    )
    assert 0 < loss < 100 and 0 <= accuracy <= 1


@pytest.mark.slow
def test_two_devices_train_as_one_does(kit, tmp_path):
    recipe = tmp_path / "detection.toml"
    recipe.write_text(RECIPE.format(kit=kit, classes=list(COLOURS)))
    # The last batch of the epoch has two images, one for each device.
    lengths = ("train.steps=5", "train.batch=6", "train.log_every=1", "devices.sync_batch_norm=true")
    losses = []
    for name, devices in (("one", "devices.strategy=one"), ("two", "devices.replicas=2")):
        result, run = start(recipe, *lengths, devices, name=name)
        assert result.returncode == 0, run.log.read_text()
        losses.append([event["loss"] for event in events_of(run, "step")])
    assert len(losses[0]) == 5 and losses[0] == pytest.approx(losses[1], rel=1e-2)


@pytest.mark.slow
def test_a_detectors_step_compiles_under_xla(xla):
    small = backbone("compact", (48, 48, 3), width=0.25, blocks=4)
    objects = np.array([[[5, 5, 30, 30, 1], [0, 0, 0, 0, NO_OBJECT]]] * 2, np.float32)
    batch = (np.zeros((2, 48, 48, 3), np.uint8), objects)
    for model in (
        FasterRCNN(small, "conv2", "conv2", 4, 3, 48, 2, 0, norm="trained"),
        FastRCNN(small, "conv2", "conv2", 4, 3, 48, 1, 1, 0, norm="trained"),
        RetinaNet(small, ["conv1", "conv2", "conv3"], 3, 48, 2, 0, norm="trained"),
    ):
        model.compile_for(keras.optimizers.SGD(0.01), 0.0)
        model.build_as_compiled()
        step = tf.function(model.train_step, jit_compile=True)
        assert np.isfinite([float(step(batch)["loss"]) for _ in range(2)]).all()


def test_the_last_layers_of_a_backbone_classify_its_regions():
    small = backbone("alexnet", (127, 127, 3), width=0.05)
    trunk, rest = split_backbone(small, "conv5", "pool5", None, 191)
    assert trunk.input.shape[1:3] == (191, 191) and trunk.output.shape[3] == rest.input.shape[3]
    assert [layer.name for layer in rest.layers[-3:]] == ["fc7_dense", "fc7_bn", "fc7"]
    pixels = np.random.default_rng(0).random((1, 127, 127, 3)) * 255
    pooled = keras.Model(small.input, small.get_layer("pool5").output)(pixels)
    assert np.asarray(rest(pooled)) == pytest.approx(np.asarray(small(pixels)), abs=1e-5)
    with pytest.raises(DataError, match="cannot take others"):
        split_backbone(small, "conv5", "pool5", 7, 191)
    with pytest.raises(DataError, match="'fc6' has none"):
        split_backbone(small, "conv5", "fc6", None, 191)


@pytest.fixture
def of_alexnet(kit, tmp_path):
    """A recipe of Faster R-CNN on a narrow AlexNet with dropout, and its data."""
    recipe = tmp_path / "detection.toml"
    text = RECIPE.replace(
        'taps = ["conv2"]\ncells = 6', 'taps = ["conv5"]\nafter = "pool5"\ndropout = 0.5\nbias_rate = 2.0'
    )
    text = text.replace('name = "compact"\nblocks = 3\nwidth = 0.5', 'name = "alexnet"\nwidth = 0.05')
    recipe.write_text(text.replace("side = 48", "side = 127\nshort = 60").format(kit=kit, classes=list(COLOURS)))
    loaded = load_recipe(str(recipe))
    return loaded, load_annotated(loaded.data, False, lambda *progress: None)


def test_a_detector_has_the_recipes_dropout_and_rate_of_biases(of_alexnet):
    recipe, dataset = of_alexnet
    model = build_detector(recipe, dataset)
    dropout = {layer.name: layer.rate for layer in model.head.layers if isinstance(layer, StepDropout)}
    assert dropout == {"fc6_dropout": 0.5, "fc7_dropout": 0.5}
    model.compile_for(build_optimizer(recipe.optimizer), 0.0)
    scale_learning_rates(model, recipe, model.new_variables)
    factors = [(v.name, f) for v, f in zip(model.trainable_variables, model.optimizer.rate_factors, strict=True)]
    assert {f for name, f in factors if name == "bias"} == {2.0}
    assert {f for name, f in factors if name != "bias"} == {1.0}


def test_detection_is_evaluated_at_the_recipes_short_side(of_alexnet, monkeypatch):
    recipe, dataset = of_alexnet
    shorts = []
    fitted = letterbox.fitted_placement
    monkeypatch.setattr(
        letterbox, "fitted_placement", lambda size, side, short=None: shorts.append(short) or fitted(size, side, short)
    )

    class Trainer(DetectorTrainer):
        """A trainer whose model finds no object."""

        def __init__(self):
            self.recipe, self.dataset = recipe, dataset
            self.session = SimpleNamespace(stop=SimpleNamespace(check=lambda: None))
            nothing = {"boxes": np.zeros((1, 1, 4)), "classes": -np.ones((1, 1)), "confidence": np.zeros((1, 1))}
            self.evaluation_model = SimpleNamespace(
                objects=3,
                rows=3,
                loss_and_accuracy=lambda *_: (0.0, 0.0),
                inference_inputs=lambda pixels, _: pixels,
                inference_model=SimpleNamespace(predict_on_batch=lambda _: nothing),
            )

    assert Trainer().evaluate(dataset.test)["score"] == 0
    assert shorts == [60] * len(dataset.test)


@pytest.mark.long
def test_a_pyramid_needs_three_maps_each_half_as_large():
    resnet = backbone("resnet50", (64, 64, 3), width=0.1)
    assert [each.shape[1] for each in pyramid_trunk(resnet, ["conv3", "conv4", "conv5"], 96).outputs] == [12, 6, 3]
    # AlexNet's maps are a little short of that.
    alexnet = backbone("alexnet", (127, 127, 3), width=0.05)
    assert [each.shape[1] for each in pyramid_trunk(alexnet, ["conv2", "conv5", "pool5"], 256).outputs] == [32, 16, 8]
    with pytest.raises(DataError, match="each half as high and wide"):
        pyramid_trunk(resnet, ["conv3", "conv3", "conv4"], 96)
    with pytest.raises(DataError, match="each half as high and wide"):
        pyramid_trunk(resnet, ["conv3", "conv4", "conv5"], 80)


def test_selective_search_proposes_the_objects_box_in_the_pixels_of_the_image():
    noise = np.random.default_rng(0).normal(0, 4, (600, 800, 3))
    pixels = np.full((600, 800, 3), 120.0)
    pixels[150:450, 200:500] = 30, 160, 220
    pixels = np.clip(pixels + noise, 0, 255).astype(np.uint8)
    found = proposals.selective_search(pixels)
    assert found.dtype == np.float32 and len(np.unique(found, axis=0)) == len(found)
    assert (found >= 0).all() and (found <= [600, 800, 600, 800]).all()
    best = np.abs(found - [150, 200, 450, 500]).max(axis=1).min()
    assert best < 8
    np.testing.assert_array_equal(found, proposals.selective_search(pixels))
    assert len(proposals.selective_search(np.zeros((4, 300, 3), np.uint8))) == 0


def test_proposals_are_computed_once_and_limited(kit, tmp_path, monkeypatch):
    monkeypatch.setenv("ROTNET_CACHE_DIR", str(tmp_path / "cache"))
    recipe = tmp_path / "detection.toml"
    recipe.write_text(FAST_RCNN.format(kit=kit, classes=list(COLOURS)))
    dataset = load_annotated(load_recipe(str(recipe)).data, False)
    searched = []

    def search(pixels):
        searched.append(pixels.shape)
        return np.arange(40, dtype=np.float32).reshape(10, 4) + len(searched)

    monkeypatch.setattr(proposals, "selective_search", search)
    monkeypatch.setattr(proposals, "cpu_count", lambda: 1)
    first = proposals.with_proposals(dataset, 4)
    assert len(searched) == 40 and [boxes.shape for boxes in first.test.proposals] == [(4, 4)] * 20
    again = proposals.with_proposals(dataset, 4)
    assert len(searched) == 40
    for split in ("train", "test"):
        for ours, theirs in zip(getattr(first, split).proposals, getattr(again, split).proposals, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert len(proposals.with_proposals(dataset, 20).train.proposals[0]) == 10 and len(searched) == 80


def test_proposals_are_placed_as_their_image_is(kit, tmp_path):
    recipe = tmp_path / "detection.toml"
    recipe.write_text(FAST_RCNN.format(kit=kit, classes=list(COLOURS)))
    train = load_annotated(load_recipe(str(recipe)).data, False).train
    train = replace(train, proposals=[np.array([[0, 0, 20, 12], [4, 8, 40, 48]], np.float32)] * len(train))
    where = letterbox.Placement(48, 40, 2.0, flip=True)
    _, objects = letterboxed_batch(train, [(0, where)], 96, 3, 4)
    assert objects.shape == (1, 7, 5)
    assert objects[0, 3:, :4].tolist() == [[0, 72, 40, 96], [8, 0, 80, 80], [0] * 4, [0] * 4]
    assert (objects[0, 3:, 4] == NO_OBJECT).all()


def test_fast_rcnn_learns_from_its_proposals_and_the_objects_boxes():
    small = backbone("compact", (48, 48, 3), width=0.25, blocks=4)
    model = FastRCNN(small, "conv2", "conv2", 4, 3, 48, 1, 3, 0)
    model.compile_for(keras.optimizers.SGD(0.01), 0.0)
    nothing = [0, 0, 0, 0, NO_OBJECT]
    # A proposal on the object, one beside it that overlaps by less than a tenth, and one that does by a third.
    rows = [[8, 8, 40, 40, 2], [8, 8, 40, 38, NO_OBJECT], [0, 0, 12, 12, NO_OBJECT], [8, 24, 40, 56, NO_OBJECT]]
    objects = np.array([rows, [nothing] * 4], np.float32)
    pixels = np.zeros((2, 48, 48, 3), np.float32)
    inputs = model.training_inputs((pixels, tf.constant(objects)))[0]
    losses, correct, sampled = np.asarray(model(inputs)).T
    # The object's own box and the first proposal are objects, the last one is background.
    assert sampled.tolist() == [3, 0] and losses[1] == 0 and 0 < losses[0] < 10 and correct[0] <= 3
    found = model.inference_model.predict_on_batch(model.inference_inputs(pixels, objects))
    assert found["boxes"].shape == (2, 100, 4) and (found["classes"][1] == -1).all()


def test_fast_rcnn_without_its_package_is_refused_before_anything_starts(kit, tmp_path, monkeypatch):
    recipe = tmp_path / "detection.toml"
    recipe.write_text(FAST_RCNN.format(kit=kit, classes=list(COLOURS)))
    monkeypatch.setattr(launch, "find_spec", lambda name: None if name == "cv2" else SimpleNamespace())
    with pytest.raises(RecipeError, match=r"pip install 'rotnet-keras\[proposals\]'"):
        launch.load_for_run(str(recipe), {}, tmp_path)
