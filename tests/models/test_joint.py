"""Classes and rotations predicted jointly."""

import numpy as np
import pytest

from rotnet_keras.config.schema import Joint
from rotnet_keras.config.sections import Augment, Backbone
from rotnet_keras.engine import keras, tf
from rotnet_keras.models.backbones.registry import build_backbone
from rotnet_keras.models.heads import build_head
from rotnet_keras.models.joint import JointClassifier

ANGLES = [0, 270, 90]


def joint_classifier(**section):
    keras.utils.set_random_seed(1)
    backbone = build_backbone(Backbone(name="compact", blocks=2, width=0.25), (16, 16, 3), [120.0] * 3, [60.0] * 3)
    head = build_head("pool", backbone.output.shape[1:], 5 * len(ANGLES), "conv2")
    model = JointClassifier(backbone, head, Joint(angles=ANGLES, **section), Augment(), seed=0)
    model.compile_for(keras.optimizers.SGD(0.01), label_smoothing=0.0)
    return model


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3)).astype("uint8")


def test_a_prediction_is_the_mean_at_the_known_angles_of_the_copies(images):
    model = joint_classifier()
    by_hand = np.zeros((6, 5))
    for i, quarters in enumerate([0, 3, 1]):
        logits = model.head(model.backbone(np.rot90(images, quarters, axes=(1, 2))))
        by_hand += np.asarray(logits)[:, 5 * i : 5 * i + 5] / 3
    np.testing.assert_allclose(np.asarray(model(images)), by_hand, rtol=1e-4, atol=1e-5)
    expected = np.exp(by_hand) / np.exp(by_hand).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(np.asarray(model.exported()(images)), expected, rtol=1e-3, atol=1e-5)
    upright = joint_classifier(predict="upright")
    by_hand = np.asarray(upright.head(upright.backbone(images)))[:, :5]
    np.testing.assert_allclose(np.asarray(upright(images)), by_hand, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.asarray(upright.exported()(images)).argmax(axis=1), by_hand.argmax(axis=1))


def test_a_step_learns_class_and_angle_and_measures_the_class(images):
    model = joint_classifier()
    labels = np.array([0, 1, 2, 3, 4, 0])
    inputs, targets = model.training_inputs((images, tf.constant(labels)))
    assert inputs.shape == (18, 16, 16, 3)
    assert targets.numpy().tolist() == [[label, angle] for angle in range(3) for label in labels]
    # A network that is sure of class and angle has no loss; one that is sure of another angle is still right.
    sure = 50.0 * np.eye(15, dtype=np.float32)[targets[:, 1] * 5 + targets[:, 0]]
    assert float(model.compute_loss(inputs, targets, tf.constant(sure))) < 1e-6
    elsewhere = tf.roll(tf.constant(sure), 5, axis=1) + 10.0 * np.tile(np.eye(5, dtype=np.float32)[labels], (3, 3))
    assert float(model.compute_loss(inputs, targets, elsewhere)) > 30
    model.reset_metrics()
    assert float(model.compute_metrics(inputs, targets, elsewhere)["accuracy"]) == 1
    history = model.fit(images, labels, epochs=20, batch_size=6, verbose=0).history
    assert history["loss"][-1] < history["loss"][0] < 2 * np.log(15)
