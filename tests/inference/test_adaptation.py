"""Test-time adaptation of classifiers: `predict --adapt`."""

import json

import numpy as np
import pytest
from PIL import Image
from support.command_line import invoke
from support.tiny import upright_images

CLASSES = ["a", "b", "c"]
SIDE = 16


@pytest.fixture
def exports(tmp_path):
    """A classifier and a rotation model of one backbone, and names of the classes."""
    from rotnet_keras.engine import keras
    from rotnet_keras.models.export import with_softmax
    from rotnet_keras.models.heads import build_head

    keras.utils.set_random_seed(0)
    inputs = keras.Input((SIDE, SIDE, 3))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    for number in (1, 2):
        x = keras.layers.Conv2D(8, 3, strides=2, padding="same", name=f"conv{number}")(x)
        x = keras.layers.BatchNormalization(name=f"norm{number}")(x)
        x = keras.layers.ReLU()(x)
    # In training, this would drop all that it gets.
    x = keras.layers.Dropout(0.99, seed=0)(x)
    backbone = keras.Model(inputs, x, name="backbone")
    shape = backbone.output.shape[1:]
    folder = tmp_path / "export"
    folder.mkdir()
    with_softmax(backbone, build_head("pool", shape, 3, "top"), "classifier").save(folder / "classifier.keras")
    with_softmax(backbone, build_head("pool", shape, 4, "rotation"), "rotnet").save(folder / "rotnet.keras")
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES))
    return folder


@pytest.fixture
def images(tmp_path):
    """A hundred and thirty images, and a file that cannot be read."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number, pixels in enumerate(upright_images(130, SIDE)[0]):
        Image.fromarray(pixels).save(folder / f"{number:03}.png")
    (folder / "text.png").write_text("no image")
    return folder


def predict(tmp_path, *arguments, to="out.jsonl", images="images"):
    given = ["predict", "export/classifier.keras", images, "--to", to, "--classes", "classes.txt", "--top", 3]
    return invoke(*given, *arguments, cwd=tmp_path)


def probabilities(tmp_path, to="out.jsonl"):
    """{name of the image: the probabilities of the classes}."""
    rows = [json.loads(line) for line in (tmp_path / to).read_text().splitlines()]
    return {
        row["file"].rsplit("/", 1)[-1]: [
            dict(
                zip([row[f"class_{n}"] for n in (1, 2, 3)], [row[f"probability_{n}"] for n in (1, 2, 3)], strict=True)
            )[c]
            for c in CLASSES
        ]
        for row in rows
        if not row["error"]
    }


def pixels_of(images):
    return np.stack([np.asarray(Image.open(file)) for file in sorted(images.glob("[0-9]*.png"))]).astype(np.float32)


def test_statistics_are_those_of_the_images(tmp_path, exports, images, monkeypatch):
    from rotnet_keras.engine import keras
    from rotnet_keras.inference import loading

    before = (exports / "classifier.keras").read_bytes()
    # A single batch, in which training mode has the same statistics.
    monkeypatch.setattr(loading, "BATCH", 500)
    result = predict(tmp_path, "--adapt", "statistics")
    assert result.returncode == 0, result.stderr
    assert "Adapted: 2 batch normalisations use the statistics of 130 images." in result.stdout
    assert (exports / "classifier.keras").read_bytes() == before
    model = keras.models.load_model(exports / "classifier.keras")
    plain = np.asarray(model(pixels_of(images), training=False))
    for layer in model.layers[1].layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    expected = np.asarray(model(pixels_of(images), training=True))
    found = np.array([value for _, value in sorted(probabilities(tmp_path).items())])
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert np.abs(found - plain).max() > 0.01


def test_statistics_of_many_batches_count_each_image_once(exports, images):
    from rotnet_keras.engine import keras
    from rotnet_keras.models.adaptation import normalisations, take_statistics

    model, pixels = keras.models.load_model(exports / "classifier.keras"), pixels_of(images)
    assert take_statistics(model, [pixels[:100], pixels[100:128], pixels[128:]]) == 2
    first = normalisations(model)[0]
    inputs = keras.Model(model.layers[1].input, model.layers[1].get_layer("conv1").output)(pixels)
    np.testing.assert_allclose(first.moving_mean, np.mean(inputs, (0, 1, 2)), atol=1e-5)
    np.testing.assert_allclose(first.moving_variance, np.var(inputs, (0, 1, 2)), rtol=1e-4)


def test_layers_that_are_used_at_several_angles_get_the_statistics_of_all(images):
    from rotnet_keras.config.schema import Joint
    from rotnet_keras.config.sections import Augment
    from rotnet_keras.models.adaptation import normalisations, take_statistics
    from rotnet_keras.models.backbones.registry import backbone
    from rotnet_keras.models.heads import build_head
    from rotnet_keras.models.joint import JointClassifier
    from rotnet_keras.models.rotation import rotate_batch

    net = backbone("compact", (SIDE, SIDE, 3), blocks=2, width=0.25)
    head = build_head("pool", net.output.shape[1:], 8, "top")
    exported = JointClassifier(net, head, Joint(), Augment(), 0).exported()
    pixels = pixels_of(images)
    count = take_statistics(exported, [pixels])
    # The joint model itself, over all rotated copies in one batch.
    copies, _ = rotate_batch(pixels)
    assert take_statistics(net, [np.asarray(copies)]) == count > 1
    for ours, theirs in zip(normalisations(exported), normalisations(net), strict=True):
        np.testing.assert_allclose(ours.moving_mean, theirs.moving_mean, atol=0.05)


def test_steps_on_rotations_change_what_both_heads_share(tmp_path, exports, images):
    assert predict(tmp_path, to="plain.jsonl").returncode == 0
    before = {file.name: file.read_bytes() for file in exports.iterdir()}
    result = predict(tmp_path, "--adapt", "rotations")
    assert result.returncode == 0, result.stderr
    assert "Adapted: 3 steps on the rotations of 130 images changed 4 shared layers" in result.stdout
    assert {file.name: file.read_bytes() for file in exports.iterdir()} == before
    plain, adapted = probabilities(tmp_path, "plain.jsonl"), probabilities(tmp_path)
    assert plain.keys() == adapted.keys() and len(plain) == 130
    assert any(not np.allclose(plain[name], adapted[name], atol=1e-5) for name in plain)


def test_steps_on_rotations_lower_their_loss(exports, images, monkeypatch):
    from rotnet_keras.engine import keras
    from rotnet_keras.models import adaptation

    models = [keras.models.load_model(exports / f"{name}.keras") for name in ("classifier", "rotnet")]
    heads = [model.layers[2].get_weights() for model in models]
    monkeypatch.setattr(adaptation, "LEARNING_RATE", 2.0)
    steps = adaptation.train_on_rotations(*models, (0, 90, 180, 270), [pixels_of(images)] * 20)
    assert steps.after < steps.before - 0.02 and (steps.count, steps.layers) == (20, 4)
    for model, head in zip(models, heads, strict=True):
        assert all(map(np.array_equal, model.layers[2].get_weights(), head))
    shared = [model.layers[1].get_weights() for model in models]
    assert all(map(np.array_equal, *shared))


def test_a_stopped_command_goes_on_with_the_same_adaptation_only(tmp_path, exports, images, monkeypatch):
    from rotnet_keras.inference import prediction

    assert predict(tmp_path, "--adapt", "statistics").returncode == 0
    whole = (tmp_path / "out.jsonl").read_bytes()
    (tmp_path / "out.jsonl").unlink()
    predicted, batches = prediction.Classifier.probabilities, []

    def interrupted(self, pixels):
        batches.append(len(pixels))
        if len(batches) == 2:
            raise KeyboardInterrupt
        return predicted(self, pixels)

    with monkeypatch.context() as patched:
        patched.setattr(prediction.Classifier, "probabilities", interrupted)
        assert predict(tmp_path, "--adapt", "statistics").returncode == 130
    refused = [predict(tmp_path), predict(tmp_path, "--adapt", "rotations")]
    assert [each.returncode for each in refused] == [2, 2]
    assert "adapt 'statistics' instead of 'none'" in refused[0].stderr
    assert "adapt 'statistics' instead of 'rotations'" in refused[1].stderr
    # With another image, the statistics would be others.
    (images / "new.png").write_bytes((images / "000.png").read_bytes())
    refused = predict(tmp_path, "--adapt", "statistics")
    assert refused.returncode == 2 and "adapted to '131 images" in refused.stderr, refused.stderr
    (images / "new.png").unlink()
    again = predict(tmp_path, "--adapt", "statistics")
    assert again.returncode == 0 and "64 of 131 images are done" in again.stdout, again.stdout + again.stderr
    assert (tmp_path / "out.jsonl").read_bytes() == whole


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("statistics", "has no batch normalisation, so there are no statistics to adapt"),
        ("rotations", "has no rotation head, a rotnet.keras beside it: train the classifier with [auxiliary]"),
    ],
)
def test_what_cannot_be_adapted_is_said_at_once(tmp_path, exports, images, how, message):
    from rotnet_keras.engine import keras

    inputs = keras.Input((SIDE, SIDE, 3))
    outputs = keras.layers.Dense(3, activation="softmax")(keras.layers.GlobalAveragePooling2D()(inputs))
    keras.Model(inputs, outputs).save(exports / "classifier.keras")
    (exports / "rotnet.keras").unlink()
    result = predict(tmp_path, "--adapt", how)
    assert result.returncode == 3 and message in result.stderr and len(result.stderr.splitlines()) == 1
    assert not list(tmp_path.glob("out*"))


def test_a_rotation_model_of_another_training_is_refused(tmp_path, exports, images):
    from rotnet_keras.engine import keras

    model = keras.models.load_model(exports / "rotnet.keras")
    model.set_weights([weights + 1e-3 for weights in model.get_weights()])
    model.save(exports / "rotnet.keras")
    result = predict(tmp_path, "--adapt", "rotations")
    assert result.returncode == 3 and "shares no layers with the rotation model beside it" in result.stderr
    assert not list(tmp_path.glob("out*"))


def test_few_images_are_warned_of(tmp_path, exports, images):
    result = predict(tmp_path, "--adapt", "statistics", images="images/000.png")
    assert result.returncode == 0 and "1 images are few to take statistics from" in result.stderr
