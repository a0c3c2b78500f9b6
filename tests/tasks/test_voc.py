"""Transfer to PASCAL VOC's tasks."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from support.command_line import invoke, run_python
from support.precision import BFLOAT16
from support.tiny_recipes import SEGMENTATION
from support.voc_kit import COLOURS, make_kit
from support.whole_runs import events_of, start

from rotnet_keras.config.loading import load_recipe
from rotnet_keras.config.sections import Optimizer
from rotnet_keras.data import letterbox
from rotnet_keras.data.annotations import load_annotated
from rotnet_keras.data.letterbox import fitted_placement, letterbox_image, letterbox_mask
from rotnet_keras.engine import dtype_policy, keras, tf
from rotnet_keras.errors import DataError
from rotnet_keras.evaluation.metrics import class_ious
from rotnet_keras.models.backbones.registry import backbone, freeze_up_to, with_input_shape
from rotnet_keras.models.detectors.regions import split_backbone
from rotnet_keras.models.fused_batch_norm import with_fused_batch_norm, with_stock_layers
from rotnet_keras.models.multi_label import DIFFICULT, TopClassAccuracy, sigmoid_loss
from rotnet_keras.models.segmenters import VOID, PixelAccuracy, Segmenter, fcn, new_variables, pixel_loss
from rotnet_keras.models.step_dropout import StepDropout, with_dropout
from rotnet_keras.reports.tables import result_tables
from rotnet_keras.runs.folder import RunFolder
from rotnet_keras.runs.task_labels import score_of
from rotnet_keras.tasks.finetune import build_classifier, scale_learning_rates
from rotnet_keras.tasks.voc import common
from rotnet_keras.tasks.voc.classification import MultiLabelTrainer, as_multi_label, scores_of_classification
from rotnet_keras.tasks.voc.common import backbone_for
from rotnet_keras.tasks.voc.segmentation import SegmenterTrainer, build_segmenter
from rotnet_keras.training.optimizers import build_optimizer

CLASSIFICATION = """\
kind = "transfer"
task = "classification"
title = "tiny transfer"
views = 3

[data]
name = "{kit}"
classes = {classes}
size = 40
splits = {{ train = "train+val", test = "train+val" }}

[augment]
crop = 32

[backbone]
name = "compact"
blocks = 2
width = 0.5

[optimizer]
learning_rate = 0.05
clip = 10.0

[train]
steps = 40
batch = 10
precision = "float32"
"""


@pytest.fixture(scope="module")
def kit(tmp_path_factory):
    return make_kit(tmp_path_factory.mktemp("kit"), 20)


@pytest.mark.long
def test_classification_overfits_twenty_images_and_its_export_classifies_them(kit, tmp_path):
    recipe = tmp_path / "classification.toml"
    recipe.write_text(CLASSIFICATION.format(kit=kit, classes=list(COLOURS)))
    result, run = start(recipe)
    assert result.returncode == 0, run.log.read_text()
    (test,) = events_of(run, "test")
    assert test["score"] > 0.9 and test["score_one_crop"] > 0.9 and test["score_area"] > 0.9
    assert test["score"] == pytest.approx(np.mean(test["per_class"]))
    report = (run.path / "report.md").read_text()
    assert "**Mean average precision, %**" in report
    found = json.loads(invoke("status", run.path, "--json").stdout)
    assert found["object_accuracy"] == test["score"] and found["rotation_accuracy"] is None
    code = """
import sys, keras, numpy as np
from PIL import Image
model = keras.models.load_model(sys.argv[1])
image = np.asarray(Image.new("RGB", (32, 32), (220, 30, 30)), np.float32)
print(*model.predict(image[None], verbose=0)[0])
assert not any("rotnet" in name for name in sys.modules)
"""
    bus, *others = map(float, run_python(code, run.export / "classifier.keras").split())
    assert bus > 0.8 > max(others) >= 0


@pytest.mark.long
def test_segmentation_overfits_twenty_images_and_its_export_segments_them(kit, tmp_path):
    recipe = tmp_path / "segmentation.toml"
    recipe.write_text(SEGMENTATION.format(kit=kit, classes=list(COLOURS)))
    result, run = start(recipe)
    assert result.returncode == 0, run.log.read_text()
    (test,) = events_of(run, "test")
    assert test["score"] > 0.8 and test["accuracy"] > 0.95
    counts = np.array(test["confusion"])
    assert counts.sum() == 20 * 48 * 40
    assert test["per_class"] == class_ious(counts)
    report = (run.path / "report.md").read_text()
    assert "**Mean IoU, %**" in report and "![Test images](figures/pictures.png)" in report
    code = """
import sys, keras, numpy as np
from PIL import Image
model = keras.models.load_model(sys.argv[1])
canvas = np.full((48, 48, 3), (124, 116, 104), np.float32)
canvas[:40] = np.asarray(Image.open(sys.argv[2]))
found = np.argmax(model.predict(canvas[None], verbose=0)[0, :40], axis=-1)
print(np.mean(found == np.asarray(Image.open(sys.argv[3]))))
assert not any("rotnet" in name for name in sys.modules)
"""
    picture, mask = kit / "JPEGImages" / "000001.jpg", kit / "SegmentationClass" / "000001.png"
    assert float(run_python(code, run.export / "segmenter.keras", picture, mask)) > 0.9


@pytest.mark.slow
def test_deeplab_combines_two_feature_maps_of_any_sizes(kit, tmp_path):
    recipe = tmp_path / "segmentation.toml"
    text = SEGMENTATION.replace('tap = "conv1"', 'decoder = "deeplab"\ntap = "conv2"\nlow = "conv1"')
    recipe.write_text(text.format(kit=kit, classes=list(COLOURS)).replace("side = 48", "side = 44"))
    loaded = load_recipe(str(recipe))
    dataset = load_annotated(loaded.data, True, lambda *progress: None)
    model = build_segmenter(loaded, dataset)
    assert model.network.output.shape[1:] == (44, 44, 4)
    model.compile_for(keras.optimizers.SGD(0.2, momentum=0.9), 0.0)
    places = [fitted_placement(dataset.train.size(p), 44) for p in range(4)]
    canvases = np.stack([letterbox_image(dataset.train.image(p), where, 44) for p, where in enumerate(places)])
    masks = np.stack([letterbox_mask(dataset.train.mask(p), where, 44, VOID) for p, where in enumerate(places)])
    first, *_, last = [model.train_on_batch(canvases, masks)[0] for _ in range(6)]
    assert last < 0.7 * first
    names = {variable.path.split("/")[0] for variable in new_variables(model.network)}
    assert "score" in names and not any(name.startswith("block") for name in names)


def segmentation(kit, tmp_path, overrides):
    """A recipe of segmentation, and its data."""
    recipe = tmp_path / "segmentation.toml"
    recipe.write_text(SEGMENTATION.format(kit=kit, classes=list(COLOURS)))
    loaded = load_recipe(str(recipe), overrides)
    return loaded, load_annotated(loaded.data, True, lambda *progress: None)


def test_the_biases_of_a_segmenter_learn_at_their_own_rate(kit, tmp_path):
    recipe, dataset = segmentation(kit, tmp_path, {"bias_rate": 2.0})
    model = build_segmenter(recipe, dataset)
    model.compile_for(build_optimizer(recipe.optimizer), 0.0)
    common.scale_learning_rates(model, recipe, new_variables(model.networks[0]))
    factors = [(v.name, f) for v, f in zip(model.trainable_variables, model.optimizer.rate_factors, strict=True)]
    assert {f for name, f in factors if name == "bias"} == {2.0}
    assert {f for name, f in factors if name != "bias"} == {1.0}


@pytest.mark.parametrize("flip", [True, False])
def test_training_images_are_mirrored_if_the_recipe_says_so(kit, tmp_path, flip):
    recipe, dataset = segmentation(kit, tmp_path, {"canvas.flip": flip})
    placements = []

    def make_arrays(chosen):
        placements.extend(placement for _, placement in chosen)
        return [np.zeros((len(chosen), 1), np.uint8)]

    batches = common.letterboxed_batches(
        recipe, dataset.train, make_arrays, [((1,), tf.uint8)], first=0, last=4, replicas=None
    )
    assert len(list(batches)) == 4 and len(placements) == 40
    assert 0 < sum(placement.flip for placement in placements) < 40 if flip else not any(p.flip for p in placements)


def test_segmentation_is_evaluated_at_the_recipes_short_side(kit, tmp_path, monkeypatch):
    shorts = []
    monkeypatch.setattr(
        letterbox,
        "fitted_placement",
        lambda size, side, short=None: shorts.append(short) or fitted_placement(size, side, short),
    )
    monkeypatch.setattr("rotnet_keras.tasks.voc.segmentation.draw_segmentations", lambda *_: None)
    recipe, dataset = segmentation(kit, tmp_path, {"canvas.short": 20})

    class Trainer(SegmenterTrainer):
        """A trainer whose model sees background everywhere."""

        def __init__(self):
            self.recipe, self.dataset = recipe, dataset
            console = SimpleNamespace(progress=lambda *_: None)
            folder = RunFolder(tmp_path)
            self.session = SimpleNamespace(console=console, folder=folder, stop=SimpleNamespace(check=lambda: None))
            self.evaluation_model = SimpleNamespace(
                predict_on_batch=lambda images: np.zeros((1, 48, 48, 4), np.float32), loss=lambda *_: [0.0]
            )

    images = len(dataset.test)
    Trainer().evaluate(dataset.test, "test")
    assert shorts == [20] * (images + min(images, 8))


@pytest.mark.long
def test_a_broken_annotation_is_reported_before_training(kit, tmp_path):
    broken = make_kit(tmp_path / "broken", 8)
    (broken / "Annotations" / "000003.xml").write_text("")
    recipe = tmp_path / "classification.toml"
    recipe.write_text(CLASSIFICATION.format(kit=broken, classes=list(COLOURS)))
    result, _ = start(recipe, "train.steps=2")
    assert result.returncode == 3
    assert "000003: its annotation is empty" in result.stdout


def test_a_pretrained_backbone_is_folded_rescaled_and_frozen(kit, tmp_path):
    pretrained = backbone("compact", (16, 16, 3), blocks=2, width=0.25)
    pretrained.save(tmp_path / "backbone.keras")
    recipe = tmp_path / "classification.toml"
    text = CLASSIFICATION.format(kit=kit, classes=list(COLOURS))
    of_scratch = text[text.index("[backbone]") : text.index("[optimizer]")]
    source = f'[pretrained]\nfile = "{tmp_path / "backbone.keras"}"\nfrozen = "conv1"\n'
    recipe.write_text(text.replace(of_scratch, source).replace("views", "rescale = true\nviews"))
    loaded = load_recipe(str(recipe))
    dataset = as_multi_label(load_annotated(loaded.data, False, lambda *progress: None))
    trunk = build_classifier(loaded, dataset, pretrained).backbone
    assert not any(isinstance(layer, keras.layers.BatchNormalization) for layer in trunk.layers)
    assert {v.path.split("/")[0] for v in trunk.trainable_variables} == {"block2_conv1", "block2_conv2"}
    pixels = np.random.default_rng(0).random((1, 32, 32, 3)) * 255
    expected = with_input_shape(pretrained, (32, 32, 3)).predict(pixels, verbose=0)
    assert trunk.predict(pixels, verbose=0) == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_the_classifier_starts_and_learns_as_in_the_protocol(kit, tmp_path):
    recipe = tmp_path / "classification.toml"
    recipe.write_text(CLASSIFICATION.format(kit=kit, classes=list(COLOURS)))
    loaded = load_recipe(str(recipe), {"head_start": "voc", "bias_rate": 2.0})
    dataset = as_multi_label(load_annotated(loaded.data, False, lambda *progress: None))
    model = build_classifier(loaded, dataset, backbone("compact", (32, 32, 3), blocks=2, width=4.0))
    kernel, bias = model.head.get_weights()
    assert (bias == np.float32(0.1)).all()
    assert abs(kernel.mean()) < 0.002 and 0.008 < kernel.std() < 0.012
    model.compile_for(build_optimizer(loaded.optimizer), 0.0)
    scale_learning_rates(model, loaded)
    factors = dict(zip([v.path for v in model.trainable_variables], model.optimizer.rate_factors, strict=True))
    assert {factors[v.path] for v in model.head.trainable_variables if v.name == "kernel"} == {1.0}
    assert {factor for path, factor in factors.items() if path.endswith("/bias")} == {2.0}


def test_classification_ranks_the_sums_of_logits_by_the_area_under_the_curve():
    class Trainer(MultiLabelTrainer):
        """Two crops whose logits are known, and central ones that rank the other way round."""

        def __init__(self):
            self.recipe = SimpleNamespace(views=2, seed=0)
            console = SimpleNamespace(progress=lambda *_: None)
            self.session = SimpleNamespace(console=console, stop=SimpleNamespace(check=lambda: None))
            self.evaluation_model = SimpleNamespace(evaluate=lambda *_, **__: {"loss": 1.0, "accuracy": 0.5})

        def evaluation_batches(self, split):
            return None

        def _logits(self, split, view):
            # Of the first and the last image the probabilities sum to 1.0 and 0.1, but the logits to -10 and -6.
            crops = [[20.0, 0.1, -3.0], [-30.0, 0.1, -3.0]]
            return np.array([-np.array([0.0, 1.0, 2.0]) if view is None else crops[view[1]]]).T

    split = SimpleNamespace(required_labels=lambda: np.array([[0], [1], [1]]))
    found = Trainer().evaluate(split, "test")
    # The positives come first and second of three.
    assert found["score"] == found["score_area"] == found["score_eleven_points"] == 1.0
    # In the centre they come second and third: precisions of 1/2 and 2/3 at recalls of 1/2 and 1.
    assert found["score_area_one_crop"] == pytest.approx(2 / 3) and found["score_one_crop"] == pytest.approx(2 / 3)
    assert found["per_class"] == [1.0]


def test_the_score_of_classification_is_the_area_under_the_curve_and_is_printed_first(tmp_path):
    """Of four images the first and the last are positive: precisions of 1 and 1/2 at recalls of 1/2 and 1."""
    found = scores_of_classification(np.array([[4.0], [3.0], [2.0], [1.0]]), np.array([[1], [0], [0], [1]]))
    eleven_points = pytest.approx((6 * 1 + 5 * 0.5) / 11)
    assert found["score"] == found["score_area"] == 0.75 and found["score_eleven_points"] == eleven_points
    run = RunFolder(tmp_path)
    run.recipe.write_text('kind = "transfer"\ntask = "classification"\n')
    crops = {"score_one_crop": 0.4, "score_area_one_crop": 0.3}
    events = [{"kind": "epoch", "time": 1.0, **found}, {"kind": "test", "time": 2.0, **crops, **found}]
    run.events_file.write_text("".join(json.dumps(event) + "\n" for event in events))
    (title, _, ((*_, first), *_)), (_, _, others) = result_tables(run)
    assert title == "Mean average precision, %" and first == "75.0"
    assert others == [
        ["area under the precision-recall curve", "75.0"],
        ["eleven-point precision, as in VOC 2007", "77.3"],
        ["area under the curve, central crop only", "30.0"],
        ["eleven-point precision, central crop only", "40.0"],
    ]


def test_results_of_earlier_versions_are_compared_by_their_area_too():
    assert score_of({"score": 0.5, "score_area": 0.6, "score_one_crop": 0.4}) == 0.6
    assert score_of({"score": 0.6, "score_area": 0.6, "score_one_crop": 0.4, "score_eleven_points": 0.5}) == 0.6
    assert score_of({"score": 0.5, "score_area": 0.6, "score_coco": 0.2}) == 0.5


@pytest.mark.long
def test_dropout_follows_on_the_dense_layers_and_changes_no_export():
    small = backbone("alexnet", (127, 127, 3), width=0.05)
    pixels = np.random.default_rng(0).random((1, 127, 127, 3)) * 255
    plain, dropping = fcn(small, "pool5", 4, 127), fcn(small, "pool5", 4, 127, 0.5)
    assert [layer.name for layer in dropping.layers if isinstance(layer, StepDropout)] == ["fc6_dropout", "fc7_dropout"]
    stock = with_stock_layers(dropping)
    assert type(stock.get_layer("fc6_dropout")) is keras.layers.Dropout
    for network in (dropping, stock):
        features = keras.Model(network.input, network.get_layer("fc7").output)(pixels)
        expected = keras.Model(plain.input, plain.get_layer("fc7").output)(pixels)
        np.testing.assert_allclose(features, expected, atol=1e-5)
    model = Segmenter(with_fused_batch_norm(dropping), seed=3)
    model.compile_for(build_optimizer(Optimizer(learning_rate=1e-3)), 0.0)
    assert np.isfinite(model.train_on_batch(pixels, np.zeros((1, 127, 127), np.uint8))[0])
    head = split_backbone(small, "conv5", "pool5", None, 127)[1]
    copied = with_dropout(head, 0.5)
    assert [layer.name for layer in copied.layers if isinstance(layer, StepDropout)] == ["fc6_dropout", "fc7_dropout"]
    for old, new in zip(head.get_weights(), copied.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    with pytest.raises(DataError, match="dropout: the backbone does not end in dense layers"):
        fcn(backbone("compact", (32, 32, 3), blocks=2, width=0.25), "conv2", 4, 32, 0.5)


def test_dropout_is_a_function_of_the_step():
    layer, step = StepDropout(0.25, name="fc6_dropout"), [0]
    layer.step_seed = lambda: np.array([3, step[0]])
    features = np.ones((4, 5000), np.float32)
    first = np.asarray(layer(features, training=True))
    assert set(np.unique(first)) == {np.float32(0), np.float32(1 / 0.75)} and abs(first.mean() - 1) < 0.02
    step[0] = 1
    assert (first != np.asarray(layer(features, training=True))).any()
    step[0] = 0
    np.testing.assert_array_equal(first, layer(features, training=True))
    np.testing.assert_array_equal(features, layer(features, training=False))


@pytest.mark.parametrize("precision", ["float32", BFLOAT16])
def test_a_backbone_from_scratch_is_rescaled_on_training_images(kit, tmp_path, precision):
    recipe = tmp_path / "segmentation.toml"
    recipe.write_text(SEGMENTATION.format(kit=kit, classes=list(COLOURS)))
    loaded = load_recipe(str(recipe), {"rescale": True})
    dataset = load_annotated(loaded.data, True, lambda *progress: None)
    with dtype_policy(precision):
        trunk = backbone_for(loaded, 48, dataset.train)
    assert not any(isinstance(layer, keras.layers.BatchNormalization) for layer in trunk.layers)
    where = [fitted_placement(dataset.train.size(p), 48) for p in range(len(dataset.train))]
    images = np.stack([letterbox_image(dataset.train.image(p), place, 48) for p, place in enumerate(where)])
    # Before the last ReLU every channel has mean 0, as after batch normalisation.
    last = next(layer for layer in reversed(trunk.layers) if isinstance(layer, keras.layers.Conv2D))
    found = keras.Model(trunk.input, last.output).predict(images, verbose=0)
    assert np.abs(found.mean(axis=(0, 1, 2)) / found.std(axis=(0, 1, 2))).max() < 0.01


def test_an_unknown_task_is_refused(tmp_path):
    recipe = tmp_path / "classification.toml"
    recipe.write_text(CLASSIFICATION.replace('"classification"', '"classificaton"').format(kit=".", classes=["a"]))
    result = invoke("run", recipe, cwd=tmp_path)
    assert result.returncode == 2
    assert "task: expected one of 'classification'" in result.stderr and "did you mean" in result.stderr


@pytest.mark.parametrize(
    ("recipe", "override", "complaint"),
    [
        (CLASSIFICATION, "head.labels_per_class=5", "head: images of several classes"),
        (SEGMENTATION, "low=conv1", "low: only 'deeplab' has it"),
        (SEGMENTATION, "decoder=deeplab", "low: 'deeplab' needs a second"),
        (SEGMENTATION, "train.label_smoothing=0.1", "train: this task has no label smoothing"),
        (SEGMENTATION.replace("title", "dropout = 0.5\ntitle"), "train.accumulate=2", "dropout: every part of a batch"),
        (SEGMENTATION, "canvas.short=600", "canvas: short: expected at most side, 48, got 600"),
    ],
    ids=["labels", "low", "deeplab", "smoothing", "dropout", "short"],
)
def test_recipes_that_a_task_cannot_follow_are_refused(tmp_path, recipe, override, complaint):
    (tmp_path / "recipe.toml").write_text(recipe.format(kit=".", classes=["a"]))
    result = invoke("run", "recipe.toml", override, cwd=tmp_path)
    assert result.returncode == 2 and complaint in result.stderr, result.stderr


def test_difficult_classes_count_in_no_loss_and_no_accuracy():
    labels, logits = np.array([[1, 0, DIFFICULT]]), np.array([[0.0, 0.0, 9.0]], np.float32)
    assert np.asarray(sigmoid_loss(labels, logits)) == pytest.approx(2 * np.log(2))
    best = TopClassAccuracy()
    best.update_state(labels, logits)
    best.update_state(np.array([[0, 1, 0]]), np.array([[3.0, 2.0, 1.0]], np.float32))
    assert float(best.result()) == 0.5


def test_void_pixels_count_in_no_loss_and_no_accuracy():
    masks = np.array([[[0, VOID], [1, VOID]]], np.uint8)
    logits = np.zeros((1, 2, 2, 2), np.float32)
    logits[0, :, 1] = 50, -50
    assert np.asarray(pixel_loss(masks, logits)) == pytest.approx(np.log(2))
    assert np.asarray(pixel_loss(np.full((1, 2, 2), VOID, np.uint8), logits)) == 0
    accuracy = PixelAccuracy()
    accuracy.update_state(masks, logits)
    assert float(accuracy.result()) == 0.5


def test_alexnets_dense_layers_become_convolutions_with_equal_outputs():
    small = backbone("alexnet", (127, 127, 3), width=0.05)
    pixels = np.random.default_rng(0).random((1, 127, 127, 3)) * 255
    network = fcn(small, "pool5", 4, 127)
    # In the middle of the map the convolution sees what the dense layer does.
    convolved = keras.Model(network.input, network.get_layer("fc7").output).predict(pixels, verbose=0)
    size = small.get_layer("pool5").output.shape[1]
    middle = (size - 1) // 2
    assert convolved.shape[1:3] == (size, size)
    expected = keras.Model(small.input, small.get_layer("fc7").output).predict(pixels, verbose=0)
    assert convolved[0, middle, middle] == pytest.approx(expected[0], abs=1e-4)
    assert network.output.shape[1:] == (127, 127, 4)


def test_frozen_layers_keep_their_weights_and_statistics():
    model = backbone("compact", (16, 16, 3), blocks=2, width=0.25)
    freeze_up_to(model, "conv1")
    of_first = [layer for layer in model.layers if layer.name.startswith("block1")]
    variables = [v for layer in of_first for v in layer.variables]
    before = [v.numpy() for v in variables]
    outputs = keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(model.output))
    trained = keras.Model(model.input, outputs)
    trained.compile("sgd", "mse")
    last = model.trainable_variables[0].numpy()
    trained.fit(np.random.default_rng(0).random((8, 16, 16, 3)) * 255, np.ones((8, 2)), verbose=0)
    assert all((v.numpy() == b).all() for v, b in zip(variables, before, strict=True))
    assert (last != model.trainable_variables[0].numpy()).any()
    with pytest.raises(DataError, match="no layer called conv9"):
        freeze_up_to(model, "conv9")


def test_a_convolutional_backbone_takes_images_of_another_size():
    model = backbone("compact", (16, 16, 3), blocks=2, width=0.25)
    larger = with_input_shape(model, (24, 32, 3))
    pixels = np.random.default_rng(0).random((1, 16, 16, 3)) * 255
    assert larger.output.shape[1:3] == (12, 16)
    assert with_input_shape(larger, (16, 16, 3)).predict(pixels, verbose=0) == pytest.approx(
        model.predict(pixels, verbose=0)
    )
    with pytest.raises(DataError, match="cannot take others"):
        with_input_shape(backbone("alexnet", (63, 63, 3), width=0.1), (95, 95, 3))
