"""Training of heads on frozen features: what each repetition and each step sees."""

from types import SimpleNamespace

import numpy as np
import pytest

from rotnet_keras.config.probes import Probe
from rotnet_keras.config.sections import Augment, Data
from rotnet_keras.data.datasets import load
from rotnet_keras.engine import keras
from rotnet_keras.evaluation.features import extract_features, feature_extractor
from rotnet_keras.evaluation.head_training import FrozenBackbone, HeadTraining, evaluate_knn
from rotnet_keras.models.backbones.registry import backbone as build_backbone
from rotnet_keras.models.backbones.registry import layer_outputs
from rotnet_keras.models.export import with_softmax

SESSION = SimpleNamespace(seed=3, progress=lambda *_: None, stop=SimpleNamespace(check=lambda: None))


@pytest.fixture
def trainings(tiny_data, tmp_path):
    """A function from a probe, of the layer conv1, to its training."""
    dataset = load(Data(name=str(tiny_data), validation=0.2))
    model = build_backbone("compact", dataset.image_shape, blocks=2, width=0.25)
    augment = Augment(pad=2, flip=True)
    extractor = feature_extractor(model, ["conv1"])
    splits = {
        "train": dataset.train,
        "view-0": dataset.train,
        "view-1": dataset.train,
        "validation": dataset.validation,
        "test": dataset.test,
    }
    stores = {
        name: extract_features(extractor, split, augment, tmp_path / name, SESSION.progress, name)
        for name, split in splits.items()
    }
    # Each view can be told by its features, and each image by them.
    for view in (0, 1):
        stores[f"view-{view}"]["conv1"][:] = np.arange(len(dataset.train)).reshape(-1, 1, 1, 1) + 1000 * view

    def make(**keys):
        probe = Probe(head="linear", tap="conv1", precision="float32", **keys)
        return HeadTraining(
            SESSION, dataset, FrozenBackbone("rotnet", model, ["conv1"]), probe, ["conv1"], augment, stores
        )

    return make


def seen(training, draw):
    """(initial weights, [(features or images, labels) of each step]) of a repetition."""
    found = []

    def fit(batches, **_):
        weights = [np.array(variable) for variable in training.model.trainable_variables]
        steps = [(x if training.recomputes_features else x["conv1"], y["conv1"]) for x, y in batches]
        found.append((weights, [(np.asarray(x), np.asarray(y)) for x, y in steps]))

    training.model.fit = fit
    training.train(draw)
    return found[0]


@pytest.mark.parametrize("keys", [{}, {"augment": True}, {"labels_per_class": 5, "label_choice": "first"}])
def test_each_repetition_has_its_own_weights_and_order_and_the_first_is_that_of_a_single_one(trainings, keys):
    training = trainings(steps=3, batch=16, repeats=3, **keys)
    first, second, third = (seen(training, draw) for draw in range(3))
    single, again = seen(trainings(steps=3, batch=16, **keys), 0), seen(training, 1)

    def same(a, b):
        return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))

    def orders(repetition):
        return [labels for _, labels in repetition[1]]

    assert same(first[0], single[0]) and same(orders(first), orders(single))
    assert same(second[0], again[0]) and same(orders(second), orders(again))
    for one, other in ((first, second), (first, third), (second, third)):
        assert not same(one[0][:1], other[0][:1]) and not same(orders(one), orders(other))


@pytest.mark.parametrize("batch", [16, 32])
def test_with_few_labels_and_a_length_in_steps_every_batch_is_whole(trainings, batch):
    """20 images: each is seen once per pass, in the view of the pass, though a batch is of two passes or three."""
    training = trainings(steps=10, batch=batch, labels_per_class=5, augment=True, views=2)
    _, steps = seen(training, 0)
    assert [len(labels) for _, labels in steps] == [batch] * 10
    drawn = np.concatenate([features[:, 0, 0, 0] for features, _ in steps])
    views, images = np.divmod(drawn.astype(int), 1000)
    assert np.unique(images, return_counts=True)[1].tolist() == [batch // 2] * 20
    assert np.bincount(views).tolist() == [5 * batch, 5 * batch]
    labels = np.concatenate([labels for _, labels in steps])
    np.testing.assert_array_equal(labels, training.dataset.train.required_labels()[images])


def test_a_length_in_epochs_is_one_of_passes_over_the_labelled_images(trainings):
    _, steps = seen(trainings(epochs=2, batch=16, labels_per_class=5), 0)
    assert [len(labels) for _, labels in steps] == [16, 4, 16, 4]


def test_knn_takes_the_labels_of_its_draw(tiny_data):
    dataset = load(Data(name=str(tiny_data), validation=0.2))
    rng = np.random.default_rng(0)
    splits = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    stores = {name: {"conv1": rng.normal(size=(len(split), 8))} for name, split in splits.items()}
    probe = Probe(head="knn", tap="conv1", labels_per_class=3, repeats=2)
    first, again, second = (evaluate_knn(probe, ["conv1"], dataset, stores, 3, draw) for draw in (0, 0, 1))
    np.testing.assert_array_equal(first["conv1"]["test"], again["conv1"]["test"])
    assert (first["conv1"]["test"] != second["conv1"]["test"]).any()


def test_a_head_on_two_layers_side_by_side_predicts_the_same_after_export(tiny_data, tmp_path):
    dataset, tap = load(Data(name=str(tiny_data), validation=0.2)), "conv1+conv2"
    model = build_backbone("compact", dataset.image_shape, blocks=2, width=0.25)
    # Beside another layer, since one alone needs no name in the training.
    taps = ["conv1", tap]
    extractor = feature_extractor(model, taps)
    stores = {
        name: extract_features(extractor, getattr(dataset, name), Augment(), tmp_path / name, SESSION.progress, name)
        for name in ("train", "validation", "test")
    }
    probe = Probe(head="mlp", tap=taps, precision="float32", steps=3)
    training = HeadTraining(SESSION, dataset, FrozenBackbone("rotnet", model, taps), probe, taps, Augment(), stores)
    confusion = training.train(1)[tap]["test"]
    features = keras.Model(model.input, layer_outputs(model, [tap])[tap])
    with_softmax(features, training.heads[tap], "classifier").save(tmp_path / "classifier.keras")
    classifier = keras.models.load_model(tmp_path / "classifier.keras")
    labels = dataset.test.required_labels()
    predicted = classifier.predict(dataset.test.images(np.arange(len(labels))), verbose=0).argmax(axis=1)
    again = np.bincount(labels * len(confusion) + predicted, minlength=confusion.size).reshape(confusion.shape)
    assert np.abs(again - confusion).sum() <= 2 and confusion.sum() == len(labels)
