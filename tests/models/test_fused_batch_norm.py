import numpy as np
import pytest
from support.command_line import run_python
from support.precision import BFLOAT16

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


@pytest.mark.parametrize(
    ("name", "options"), [("nin", {}), ("compact", {}), ("airbench", {}), ("airbench", {"activation": "silu"})]
)
def test_fused_and_stock_train_alike(name, options):
    keras.utils.set_random_seed(0)
    model = backbone(name, blocks=3, width=0.25, **options)
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


@pytest.mark.parametrize("gpus", [[], ["GPU:0"]])
def test_fixed_statistics_have_a_gradient_that_a_gpu_can_sum_in_a_fixed_order(gpus, monkeypatch):
    """The gradient of the fused operation has no deterministic kernel on a GPU where the statistics are fixed."""
    keras.utils.set_random_seed(0)
    model = with_fused_batch_norm(backbone("compact", blocks=2, width=0.25))
    for layer in model.layers:
        layer.trainable = not isinstance(layer, FusedBatchNormalization)
    expected, slopes = gradients(model)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: gpus)
    outputs, others = gradients(model)
    np.testing.assert_allclose(outputs, expected, atol=1e-4)
    for ours, theirs in zip(others, slopes, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-3 * float(tf.reduce_max(tf.abs(theirs))) + 1e-7)
    graph = tf.function(lambda: gradients_in_graph(model)).get_concrete_function().graph
    assert any("FusedBatchNormGrad" in op.type for op in graph.get_operations()) != bool(gpus)


def gradients_in_graph(model):
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(model(PIXELS, training=True))
    return tape.gradient(loss, model.trainable_variables)


def norm_of(model):
    """The batch normalisation of a model of one, nested or not."""
    (norm,) = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]
    return norm


@pytest.mark.parametrize("precision", ["float32", BFLOAT16])
@pytest.mark.parametrize("synchronized", [False, True])
@pytest.mark.parametrize(("shape", "axis"), [((2, 2, 1), -1), ((1,), -1), ((4, 1), -1), ((1, 2, 2), 1)])
def test_the_moving_variance_is_the_unbiased_one(shape, axis, synchronized, precision):
    inputs = keras.Input(shape)
    model = keras.Model(inputs, keras.layers.BatchNormalization(axis=axis, momentum=0.5)(inputs))
    values = np.arange(8, dtype="float32").reshape(-1, *shape)
    trained = with_fused_batch_norm(model, precision, synchronized)
    outputs = trained(values, training=True)
    assert float(norm_of(trained).moving_mean[0]) == pytest.approx(0.5 * values.mean(), rel=1e-6)
    # It starts at 1.
    assert float(norm_of(trained).moving_variance[0]) == pytest.approx(0.5 + 0.5 * np.var(values, ddof=1), rel=1e-6)
    expected = (values - values.mean()) / np.sqrt(np.var(values) + 1e-3)
    np.testing.assert_allclose(outputs, expected, atol=1e-5 if precision == "float32" else 1e-2)
    assert type(norm_of(with_stock_layers(trained))) is keras.layers.BatchNormalization


@pytest.mark.long
def test_synchronised_replicas_have_the_unbiased_variance_of_the_whole_batch():
    run_python("""if True:
        import numpy as np
        from rotnet_keras.engine import keras, tf
        from rotnet_keras.models.fused_batch_norm import with_fused_batch_norm

        (cpu,) = tf.config.list_physical_devices("CPU")
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
        with strategy.scope():
            norm = keras.layers.BatchNormalization(momentum=0.0)
            trained = with_fused_batch_norm(keras.Sequential([keras.Input((1,)), norm]), synchronized=True)
        # One replica has an image more than the other.
        values = np.array([[1.0], [2.0], [4.0], [8.0], [16.0]], np.float32)
        parts = strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(values[context.replica_id_in_sync_group :: 2])
        )
        strategy.run(tf.function(lambda part: trained(part, training=True)), (parts,))
        np.testing.assert_allclose(trained.layers[0].moving_variance, [values.var(ddof=1)], rtol=1e-6)
    """)


def test_vectors_train_as_with_keras_to_the_bit():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,))
    x = keras.layers.BatchNormalization()(keras.layers.Dense(5)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(3)(x))
    values = np.random.default_rng(0).normal(size=(16, 6)).astype(np.float32)

    def slopes(model):
        with tf.GradientTape() as tape:
            outputs = model(values, training=True)
            loss = tf.reduce_mean(outputs**2)
        return [outputs, *tape.gradient(loss, model.trainable_variables)]

    for ours, theirs in zip(slopes(with_fused_batch_norm(model)), slopes(model), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_layers_of_a_model_within_a_model_are_swapped_and_back():
    inputs = keras.Input((4, 4, 3))
    part = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.BatchNormalization(name="bn")], name="part")
    trained = with_fused_batch_norm(keras.Model(inputs, part(inputs)), "mixed_bfloat16")
    assert type(norm_of(trained)) is FusedBatchNormalization
    assert norm_of(trained).compute_dtype == "bfloat16"
    given = with_stock_layers(trained)
    assert type(norm_of(given)) is keras.layers.BatchNormalization
    assert norm_of(given).compute_dtype == "float32" and given.get_layer("part")


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
