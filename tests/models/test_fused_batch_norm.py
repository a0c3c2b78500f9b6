import numpy as np
import pytest

from rotnet_keras.engine import keras, tf
from rotnet_keras.models.backbones.registry import backbone
from rotnet_keras.models.fused_batch_norm import FusedBatchNormalization, with_fused_batch_norm, with_stock_layers

PIXELS = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3)).astype("float32")


def kinds(model):
    return {type(layer) for layer in model.layers}


def gradients(model):
    with tf.GradientTape() as tape:
        outputs = model(PIXELS, training=True)
        loss = tf.reduce_mean(outputs**2 * np.linspace(0, 1, outputs.shape[-1]))
    return np.asarray(outputs), tape.gradient(loss, model.trainable_variables)


@pytest.mark.parametrize(("name", "blocks"), [("nin", 3), ("compact", 3)])
def test_fused_and_stock_train_alike(name, blocks):
    keras.utils.set_random_seed(0)
    model = backbone(name, blocks=blocks, width=0.25)
    trained = with_fused_batch_norm(model)
    assert FusedBatchNormalization in kinds(trained)
    assert keras.layers.BatchNormalization not in kinds(trained)
    outputs, slopes = gradients(model)
    fused_outputs, fused_slopes = gradients(trained)
    np.testing.assert_allclose(fused_outputs, outputs, atol=1e-4)
    for ours, theirs in zip(fused_slopes, slopes, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-3 * float(tf.reduce_max(tf.abs(theirs))) + 1e-7)
    for ours, theirs in zip(trained.non_trainable_variables, model.non_trainable_variables, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=3e-3, atol=1e-5)


def test_the_moving_variance_is_the_unbiased_one():
    model = keras.Sequential([keras.Input((2, 2, 1)), keras.layers.BatchNormalization(momentum=0.0)])
    values = np.arange(8, dtype="float32").reshape(2, 2, 2, 1)
    trained = with_fused_batch_norm(model)
    trained(values, training=True)
    assert float(trained.layers[0].moving_variance[0]) == pytest.approx(np.var(values, ddof=1), rel=1e-6)


def test_with_stock_layers_has_equal_outputs_and_built_in_layers_only():
    trained = with_fused_batch_norm(backbone("compact", width=0.25))
    trained(PIXELS, training=True)
    given = with_stock_layers(trained)
    assert all(kind.__module__.startswith("keras.") for kind in kinds(given))
    np.testing.assert_allclose(np.asarray(given(PIXELS)), np.asarray(trained(PIXELS)), atol=1e-5)
    np.testing.assert_allclose(given.predict(PIXELS, verbose=0), trained.predict(PIXELS, verbose=0), atol=1e-5)


def test_with_stock_layers_makes_a_mixed_precision_model_float32_with_equal_weights():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = with_fused_batch_norm(backbone("compact", width=0.25))
    keras.config.set_dtype_policy(policy)
    copy = with_stock_layers(model)
    assert {layer.compute_dtype for layer in copy.layers} == {"float32"}
    for ours, theirs in zip(copy.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_fused_batch_norm_without_scale_and_shift_and_frozen():
    inputs = keras.Input((4, 4, 3))
    outputs = keras.layers.BatchNormalization(center=False, scale=False)(inputs)
    trained = with_fused_batch_norm(keras.Model(inputs, outputs))
    values = np.random.default_rng(1).normal(5, 3, (16, 4, 4, 3)).astype("float32")
    normalised = np.asarray(trained(values, training=True))
    np.testing.assert_allclose(normalised.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(normalised.std((0, 1, 2)), 1, atol=1e-3)
    trained.trainable = False
    before = trained.get_weights()
    trained(values, training=True)
    np.testing.assert_array_equal(trained.get_weights()[0], before[0])
