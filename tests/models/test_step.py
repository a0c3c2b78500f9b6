"""Training steps of other forms than Keras's own: in parts, in XLA, beside labels."""

import numpy as np
import pytest

from rotnet_keras.config.schema import Auxiliary
from rotnet_keras.config.sections import Augment, Optimizer, Rotation
from rotnet_keras.engine import keras, tf
from rotnet_keras.models.backbones.registry import backbone
from rotnet_keras.models.heads import build_head
from rotnet_keras.models.rotation import rotate_batch
from rotnet_keras.models.rotnet import Classifier, RotNet, softmax_loss
from rotnet_keras.models.s4l import UNLABELLED, SemiSupervised
from rotnet_keras.models.translation import TranslationRotNet
from rotnet_keras.training.optimizers import build_optimizer

IMAGES = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 3), np.uint8)


def plain_backbone():
    """Without batch normalisation, whose statistics depend on what is computed together."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Rescaling(1 / 64, -2)(inputs)
    return keras.Model(inputs, keras.layers.Conv2D(6, 3, activation="relu", name="conv1")(x))


def compiled(model, **options):
    metrics = [keras.metrics.SparseCategoricalAccuracy(name="accuracy")]
    model.compile(build_optimizer(Optimizer(learning_rate=0.05)), softmax_loss(), metrics=metrics, **options)
    return model


def trained(parts, copies, data, translation):
    augment = Augment(jitter=0.5, greyscale=0.3)
    if translation:
        model = TranslationRotNet(plain_backbone(), Rotation(copies=copies, translation=translation), augment)
    else:
        model = RotNet(plain_backbone(), copies=copies, augment=augment)
    model.accumulation_parts = parts
    logs = compiled(model).fit(data, epochs=2, verbose=0).history
    return logs, model.get_weights()


@pytest.mark.long
@pytest.mark.parametrize(("copies", "translation"), [("all", 0), ("one", 0), ("all", 2)])
def test_an_accumulated_step_equals_the_step_of_the_whole_batch(copies, translation):
    data = tf.data.Dataset.from_tensor_slices(IMAGES).batch(7)
    whole, weights = trained(1, copies, data, translation)
    parts, others = trained(3, copies, data, translation)
    for a, b in zip(weights, others, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6)
    for name in ("loss", "accuracy"):
        np.testing.assert_allclose(parts[name], whole[name], rtol=1e-5)


def test_loss_scaling_works_in_an_accumulated_step():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = RotNet(plain_backbone())
        model.accumulation_parts = 2
        compiled(model)
        assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
        before = model.get_weights()
        losses = model.fit(IMAGES, batch_size=10, epochs=8, verbose=0).history["loss"]
    finally:
        keras.config.set_dtype_policy("float32")
    assert np.isfinite(losses).all() and losses[-1] < losses[0]
    assert any((a != b).any() for a, b in zip(before, model.get_weights(), strict=True))


@pytest.mark.long
@pytest.mark.parametrize("augment", [Augment(), Augment(jitter=0.5, greyscale=0.3)])
def test_every_step_compiles_under_xla(augment, xla):
    """What a TPU needs. XLA draws other random numbers."""
    data = tf.data.Dataset.from_tensor_slices(IMAGES).batch(5, drop_remainder=True)
    nets = [RotNet(backbone("compact", (8, 8, 3), blocks=2, width=0.25), augment=augment) for _ in range(2)]
    nets[1].set_weights(nets[0].get_weights())
    losses = []
    for net, jit in zip(nets, (True, False), strict=True):
        compiled(net).build_as_compiled()
        step = tf.function(net.train_step, jit_compile=jit)
        losses.append([float(step(batch)["loss"]) for _ in range(2) for batch in data])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3 if augment == Augment() else 0.05)


def test_s4l_adds_the_losses_of_both_tasks():
    labels = np.array([2, 0, 1, UNLABELLED, UNLABELLED, UNLABELLED])
    images = IMAGES[:6]
    trunk = plain_backbone()
    model = SemiSupervised(trunk, build_head("pool", (6, 6, 6), 3, "conv1"), Auxiliary(weight=0.5), Augment(), 0)
    compiled(model)
    inputs, angles = rotate_batch(images)
    features = trunk(inputs)
    of_classes, of_angles = (tf.nn.log_softmax(head(features)).numpy() for head in (model.head, model.rotation_head))
    known = np.tile(labels, 4) != UNLABELLED
    expected = -of_classes[known, np.tile(labels, 4)[known]].mean() - 0.5 * of_angles[range(24), angles].mean()
    before = [np.array(v) for v in model.rotation_head.trainable_variables]
    logs = model.fit(tf.data.Dataset.from_tensors((images, labels)), verbose=0).history
    assert logs["loss"][0] == pytest.approx(expected, rel=1e-5)
    right = of_classes[known].argmax(1) == np.tile(labels, 4)[known]
    assert logs["accuracy"][0] == pytest.approx(right.mean())
    assert all((a != np.array(b)).any() for a, b in zip(before, model.rotation_head.trainable_variables, strict=True))
    # Evaluation is of the classes alone.
    assert model(images).shape == (6, 3)
    results = model.evaluate(tf.data.Dataset.from_tensors((images[:3], labels[:3])), verbose=0, return_dict=True)
    assert 0 <= results["accuracy"] <= 1


def test_an_accumulated_step_weights_the_labels_of_a_classifier():
    labels = np.arange(10) % 3
    nets = []
    for parts in (1, 4):
        net = Classifier(plain_backbone(), build_head("pool", (6, 6, 6), 3, "conv1"))
        nets.append(compiled(net))
        net.parts = parts
    nets[1].set_weights(nets[0].get_weights())
    for net in nets:
        net.fit(tf.data.Dataset.from_tensors((IMAGES, labels)), verbose=0)
    for a, b in zip(nets[0].get_weights(), nets[1].get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6)
