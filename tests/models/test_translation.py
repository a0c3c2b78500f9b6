"""Translations beside rotations: `rotation.translation`."""

import json

import numpy as np
import pytest
from PIL import Image
from support.command_line import invoke
from support.tiny import upright_images
from support.whole_runs import events_of, start

from rotnet_keras.config.loading import load_recipe
from rotnet_keras.config.sections import Augment, Rotation
from rotnet_keras.engine import keras, tf
from rotnet_keras.errors import RecipeError
from rotnet_keras.evaluation.novelty import measure_novelty, right_log_probabilities
from rotnet_keras.models.translation import SHIFTS, TranslationRotNet, shift

IMAGES = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 3), np.uint8)


def shifted(images, pixels, vertical, horizontal):
    """What `shift` does, by NumPy."""
    padded = np.pad(images, [(0, 0), (pixels, pixels), (pixels, pixels), (0, 0)], "reflect")
    top, left = pixels * (2 - vertical), pixels * (2 - horizontal)
    return padded[:, top : top + images.shape[1], left : left + images.shape[2]]


def translation_rotnet(copies="all", **options):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3), name="pixels")
    x = keras.layers.Rescaling(1 / 64, -2)(inputs)
    backbone = keras.Model(inputs, keras.layers.Conv2D(6, 3, activation="relu", name="conv1")(x))
    model = TranslationRotNet(backbone, Rotation(copies=copies, translation=3), **options)
    model.compile_for(keras.optimizers.SGD(0.05), label_smoothing=0.0)
    return model


def test_an_image_moves_where_its_label_says():
    image = np.zeros((1, 9, 9, 1), np.uint8)
    image[0, 4, 4] = 1
    for vertical, horizontal in SHIFTS:
        ((_, y, x, _),) = np.argwhere(shift(image, 2, vertical, horizontal).numpy())
        assert (y, x) == (4 + 2 * (vertical - 1), 4 + 2 * (horizontal - 1))
        np.testing.assert_array_equal(shift(IMAGES, 3, vertical, horizontal), shifted(IMAGES, 3, vertical, horizontal))


@pytest.mark.parametrize("copies", ["all", "one"])
def test_every_copy_is_shifted_before_it_is_rotated(copies):
    model = translation_rotnet(copies)
    inputs, targets = (np.asarray(each) for each in model.training_inputs(IMAGES))
    count = 40 if copies == "all" else 10
    assert inputs.shape == (count, 8, 8, 3) and targets.shape == (count, 3)
    for number, (angle, vertical, horizontal) in enumerate(targets):
        image = IMAGES[number % 10][None]
        np.testing.assert_array_equal(inputs[number], np.rot90(shifted(image, 3, vertical, horizontal)[0], angle))
    if copies == "all":
        assert targets[:, 0].tolist() == np.repeat(range(4), 10).tolist()
        # The copies of an image are shifted each in its own way.
        assert len({tuple(target) for target in targets[::10, 1:]}) > 1
    assert {tuple(target) for target in targets[:, 1:].tolist()} > set(SHIFTS[:1])
    model.optimizer.iterations.assign(1)
    assert (np.asarray(model.training_inputs(IMAGES)[1]) != targets).any()


def test_a_batch_in_parts_is_shifted_as_a_whole_one():
    model = translation_rotnet("one", augment=Augment(jitter=0.5))
    inputs, targets = model.training_inputs(IMAGES)
    for rows in (range(0, 10, 2), range(1, 10, 2)):
        part, of_part = model.training_inputs(IMAGES[list(rows)], tf.constant(list(rows)))
        np.testing.assert_allclose(part, tf.gather(inputs, list(rows)), atol=1e-4)
        np.testing.assert_array_equal(of_part, tf.gather(targets, list(rows)))


def test_a_step_adds_the_losses_of_the_three_tasks_and_measures_the_angles():
    model = translation_rotnet()
    inputs, targets = model.training_inputs(IMAGES)
    features = model.backbone(inputs)
    of_angles = tf.nn.log_softmax(model.head(features)).numpy()
    directions = model.translation_head(features)
    of_axes = [tf.nn.log_softmax(directions[:, first : first + 3]).numpy() for first in (0, 3)]
    expected = -sum(each[range(40), targets[:, task]].mean() for task, each in enumerate((of_angles, *of_axes)))
    before = [np.array(v) for network in model.networks for v in network.trainable_variables]
    logs = model.fit(tf.data.Dataset.from_tensors(IMAGES), verbose=0).history
    assert logs["loss"][0] == pytest.approx(expected, rel=1e-5)
    assert logs["accuracy"][0] == pytest.approx((of_angles.argmax(1) == targets[:, 0].numpy()).mean())
    after = [np.array(v) for network in model.networks for v in network.trainable_variables]
    assert len(after) == 6 and all((a != b).any() for a, b in zip(before, after, strict=True))
    # Evaluation is of the angles alone, of images that are not shifted.
    results = model.evaluate(IMAGES, batch_size=10, verbose=0, return_dict=True)
    plain = tf.concat([np.rot90(IMAGES, quarters, (1, 2)) for quarters in range(4)], axis=0)
    logarithms = tf.nn.log_softmax(model.head(model.backbone(plain))).numpy()
    assert results["loss"] == pytest.approx(-logarithms[range(40), np.repeat(range(4), 10)].mean(), rel=1e-5)


def test_the_export_has_the_probabilities_of_all_tasks():
    model = translation_rotnet()
    probabilities = np.asarray(model.exported()(IMAGES.astype(np.float32)))
    features = model.backbone(IMAGES)
    np.testing.assert_allclose(probabilities[:, :4], tf.nn.softmax(model.head(features)), rtol=1e-5)
    directions = model.translation_head(features)
    for first in (0, 3):
        expected = tf.nn.softmax(directions[:, first : first + 3])
        np.testing.assert_allclose(probabilities[:, 4 + first : 7 + first], expected, rtol=1e-5)


class Memory:
    """A model that knows some images, and gives each task's right answer a probability of its own."""

    def __init__(self, images, pixels):
        self.known = {}
        for vertical, horizontal in SHIFTS:
            for angle in range(4):
                for image in np.rot90(shifted(images, pixels, vertical, horizontal), angle, (1, 2)):
                    self.known[image.tobytes()] = angle, vertical, horizontal

    def predict_on_batch(self, images):
        probabilities = np.full((len(images), 10), 0.01)
        for row, image in enumerate(np.asarray(images)):
            angle, vertical, horizontal = self.known.get(image.tobytes(), (0, 0, 0))
            probabilities[row, [angle, 4 + vertical, 7 + horizontal]] = 0.9, 0.8, 0.7
        return probabilities


def test_the_right_answers_of_all_copies_are_read():
    found = right_log_probabilities(Memory(IMAGES, 3), IMAGES, (0, 90, 180, 270), 3)
    assert found.shape == (10, 36, 3)
    np.testing.assert_allclose(found, np.broadcast_to(np.log([0.9, 0.8, 0.7]), found.shape))
    # Of images that it does not know it gets the first answers right only.
    others = right_log_probabilities(Memory(IMAGES, 3), 255 - IMAGES, (0, 90, 180, 270), 3)
    assert np.exp(others).mean() < 0.4


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"rotation": {"angles": [0, 45], "translation": 4}}, "translation: needs right angles"),
        ({"rotation": {"translation": 32}, "data": {"size": 32}}, "translation: expected less than the side"),
    ],
)
def test_impossible_translations_are_refused(override, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe("quickstart", override)


@pytest.mark.long
def test_a_run_of_translations_finds_unusual_images_by_them(tiny_recipe, tmp_path):
    changes = 'data.only=["3"]', "train.steps=12", "features.images=0", "rotation.translation=4"
    result, run = start(tiny_recipe, *changes)
    assert result.returncode == 0, run.log.read_text()
    (event,) = events_of(run, "novelty")
    assert 0 <= event["auroc"] <= 1
    model = keras.models.load_model(run.export / "transformations.keras")
    assert model.output_shape == (None, 10)
    images, _ = upright_images(6, seed=5)
    folder = tmp_path / "images"
    folder.mkdir()
    for number, pixels in enumerate(images):
        Image.fromarray(pixels).save(folder / f"{number}.png")

    def scores(*arguments):
        found = invoke("anomalies", run.path, folder, "--json", *arguments)
        assert found.returncode == 0, found.stderr
        return {picture["file"]: picture["score"] for picture in json.loads(found.stdout)["pictures"]}

    right = right_log_probabilities(model, images, (0, 90, 180, 270), 4)
    expected = {str(folder / f"{number}.png"): score for number, score in enumerate(-right.mean(axis=(1, 2)))}
    assert scores() == pytest.approx(expected, rel=1e-4) == scores("--score", "both")
    assert scores("--score", "rotations") != pytest.approx(expected, rel=1e-2)
    refused = invoke("anomalies", run.path, folder, "--score", "classes")
    assert refused.returncode == 3 and "learned no classes" in refused.stderr


def test_novelty_is_measured_by_all_tasks(tmp_path):
    from rotnet_keras.config.sections import Data
    from rotnet_keras.data.datasets import load

    images, labels = upright_images(20, size=8, seed=4)
    np.savez(tmp_path / "some.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    dataset = load(Data(name=str(tmp_path / "some.npz"), only=["1"], validation=0.2))
    model = translation_rotnet()
    model.exported = lambda: Memory(images[labels == 1], 3)
    assert measure_novelty(dataset, ["1"], model, Augment(), 7)["auroc"] == 1
