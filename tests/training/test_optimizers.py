import numpy as np
import pytest
from support.precision import BFLOAT16

from rotnet_keras.config.sections import Optimizer
from rotnet_keras.engine import dtype_policy, keras, tf
from rotnet_keras.training.optimizers import (
    assign_averaged_weights,
    build_optimizer,
    orthogonal,
    scale_learning_rate,
    using_averaged_weights,
)


def steps_of(optimizer, weight, gradients, rates):
    variable = keras.Variable(weight, name="kernel")
    optimizer.build([variable])
    for gradient, rate in zip(gradients, rates, strict=True):
        optimizer.learning_rate = rate
        optimizer.apply([tf.constant(gradient, tf.float32)])
    return np.asarray(variable)


def test_one_step_is_the_closed_form_of_coupled_l2_with_nesterov():
    w, g = np.array([1.0, -2.0], np.float32), np.array([0.5, 0.25], np.float32)
    spec = Optimizer(name="sgd", learning_rate=0.1, momentum=0.9, nesterov=True, weight_decay=0.01)
    # Velocity starts at zero: v = g + d w, and the step is lr (1 + m) (g + d w).
    expected = w - 0.1 * 1.9 * (g + 0.01 * w)
    np.testing.assert_allclose(steps_of(build_optimizer(spec), w, [g], [0.1]), expected, rtol=1e-6)


@pytest.mark.parametrize("nesterov", [True, False])
def test_many_steps_follow_pytorch_also_when_the_rate_drops(nesterov):
    rng = np.random.default_rng(0)
    gradients = rng.normal(size=(6, 3)).astype(np.float32)
    rates = [0.1, 0.1, 0.1, 0.02, 0.02, 0.02]
    weight = rng.normal(size=3).astype(np.float32)
    spec = Optimizer(name="sgd", momentum=0.9, nesterov=nesterov, weight_decay=5e-4)
    expected, velocity = weight.astype(np.float64), np.zeros(3)
    for gradient, rate in zip(gradients, rates, strict=True):
        decayed = gradient + 5e-4 * expected
        velocity = 0.9 * velocity + decayed
        expected = expected - rate * (decayed + 0.9 * velocity if nesterov else velocity)
    np.testing.assert_allclose(steps_of(build_optimizer(spec), weight, gradients, rates), expected, rtol=1e-5)


def test_sgd_may_leave_scales_and_biases_without_decay():
    for decay, gamma_after in (("all", 0.95), ("kernels", 1.0)):
        spec = Optimizer(learning_rate=0.1, momentum=0.0, weight_decay=0.5, decay=decay)
        optimizer = build_optimizer(spec)
        kernel, gamma = keras.Variable([1.0], name="kernel"), keras.Variable([1.0], name="gamma")
        optimizer.build([kernel, gamma])
        optimizer.apply([tf.zeros(1), tf.zeros(1)])
        np.testing.assert_allclose([kernel[0], gamma[0]], [0.95, gamma_after], rtol=1e-6)


def test_adamw_decays_kernels_but_not_scales_and_biases():
    spec = Optimizer(name="adamw", learning_rate=0.1, weight_decay=0.5)
    optimizer = build_optimizer(spec)
    kernel, gamma = keras.Variable([1.0], name="kernel"), keras.Variable([1.0], name="gamma")
    optimizer.build([kernel, gamma])
    optimizer.apply([tf.zeros(1), tf.zeros(1)])
    np.testing.assert_allclose([kernel[0], gamma[0]], [0.95, 1.0], rtol=1e-6)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_variable_can_have_a_factor_of_the_learning_rate(name):
    def moved(rate, shares=()):
        optimizer = build_optimizer(Optimizer(name=name, learning_rate=rate, weight_decay=0.1))
        kernels = [keras.Variable([1.0, -2.0], name="kernel") for _ in range(2)]
        optimizer.build(kernels)
        optimizer.rate_factors = list(shares)
        for _ in range(2):
            optimizer.apply([tf.constant([0.5, 0.3])] * 2)
        return np.asarray(kernels)

    shared = moved(0.1, (0.01, 1.0))
    np.testing.assert_allclose(shared[0], moved(0.001)[0], rtol=1e-6)
    np.testing.assert_allclose(shared[1], moved(0.1)[1], rtol=1e-6)
    assert (shared[0] != shared[1]).all()


@pytest.mark.parametrize("precision", ["float32", BFLOAT16, "mixed_float16"])
def test_a_pretrained_part_has_its_own_rate_in_every_precision(precision):
    with dtype_policy(precision):
        inputs = keras.Input((2,))
        pretrained, fresh = (keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros") for _ in range(2))
        model = keras.Model(inputs, pretrained(inputs) + fresh(inputs))
        model.compile(build_optimizer(Optimizer(learning_rate=0.5, momentum=0.0, weight_decay=0.0)), "mse")
    model.optimizer.build(model.trainable_variables)
    scale_learning_rate(model, 0.25, fresh.trainable_variables)
    model.fit(np.ones((4, 2)), np.full((4, 1), 0.5), epochs=1, verbose=0)
    # The gradient of (a + b - 0.5)² is -1 in the first step, for each of the four weights.
    np.testing.assert_array_equal(fresh.kernel, [[0.5], [0.5]])
    np.testing.assert_array_equal(pretrained.kernel, [[0.125], [0.125]])


def test_biases_have_a_factor_of_the_learning_rate_on_top():
    inputs = keras.Input((2,))
    pretrained, fresh = keras.layers.Dense(3), keras.layers.Dense(1)
    model = keras.Model(inputs, fresh(pretrained(inputs)))
    model.compile(build_optimizer(Optimizer(learning_rate=0.5)), "mse")
    scale_learning_rate(model, 0.25, fresh.trainable_variables, 2.0)
    found = {id(v): factor for v, factor in zip(model.trainable_variables, model.optimizer.rate_factors, strict=True)}
    layers = (pretrained.kernel, pretrained.bias, fresh.kernel, fresh.bias)
    assert [found[id(variable)] for variable in layers] == [0.25, 0.5, 1.0, 2.0]


@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
def test_training_goes_on_from_the_newest_weights_after_an_epoch_not_from_their_ema(precision):
    spec = Optimizer(learning_rate=0.25, momentum=0.0, weight_decay=0.0, ema=0.5)
    with dtype_policy(precision):
        inputs = keras.Input((1,))
        outputs = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")(inputs)
        model = keras.Model(inputs, outputs)
        model.compile(build_optimizer(spec), "mse")
    # The gradient of (w - 0.5)² is 2 (w - 0.5): each step halves the distance to 0.5.
    for expected in (0.25, 0.375):
        model.fit(np.ones((1, 1)), np.full((1, 1), 0.5), verbose=0)
        assert float(model.trainable_variables[0][0, 0]) == expected
    with using_averaged_weights(model, spec):
        assert float(model.trainable_variables[0][0, 0]) == 0.3125


def test_the_ema_is_evaluated_and_training_continues_with_the_newest_weights():
    """0.5 of the old average: after weights 1, 2 and 4 it is ((1 + 2) / 2 + 4) / 2."""
    inputs = keras.Input((1,))
    model = keras.Model(inputs, keras.layers.Dense(1, use_bias=False)(inputs))
    spec = Optimizer(learning_rate=1.0, momentum=0.0, weight_decay=0.0, ema=0.5)
    model.compile(build_optimizer(spec), "mse")
    model.optimizer.build(model.trainable_variables)
    (weight,) = model.trainable_variables
    weight.assign([[0.0]])
    for change in (-1.0, -1.0, -2.0):
        model.optimizer.apply([tf.constant([[change]])])
    with using_averaged_weights(model, spec):
        assert float(weight[0, 0]) == 2.75
    assert float(weight[0, 0]) == 4.0
    model.optimizer.apply([tf.constant([[0.0]])])
    assign_averaged_weights(model, spec)
    assert float(weight[0, 0]) == 3.375


@pytest.mark.parametrize("shape", [(12, 5), (5, 12), (8, 8)])
def test_the_orthogonal_matrix_has_the_singular_vectors_of_the_other(shape):
    rng = np.random.default_rng(0)
    u, v = (np.linalg.qr(rng.normal(size=(side, side)))[0] for side in shape)
    rank = min(shape)
    matrix = (u[:, :rank] * np.geomspace(0.05, 1, rank)) @ v[:rank]
    values = u[:, :rank].T @ orthogonal(tf.constant(matrix, tf.float32)).numpy() @ v[:rank].T
    np.testing.assert_allclose(values - np.diag(np.diag(values)), 0, atol=1e-5)
    assert ((np.diag(values) > 0.6) & (np.diag(values) < 1.25)).all()


def test_muon_moves_kernels_of_convolutions_by_a_share_of_their_norm_and_all_else_by_sgd():
    spec = {"learning_rate": 0.1, "momentum": 0.9, "weight_decay": 0.01}
    muon = build_optimizer(Optimizer(name="muon", kernel_rate=0.2, kernel_momentum=0.6, **spec))
    sgd = build_optimizer(Optimizer(**spec))
    rng = np.random.default_rng(0)
    shapes = [(3, 3, 8, 6), (3, 3, 3, 6), (7, 4), (6,)]
    weights, gradients = ([rng.normal(size=s).astype(np.float32) for s in shapes] for _ in range(2))
    after = []
    for optimizer in (muon, sgd):
        variables = [keras.Variable(weight, name="kernel") for weight in weights]
        optimizer.build(variables)
        for rate in (0.1, 0.05):
            optimizer.learning_rate = rate
            optimizer.apply([tf.constant(gradient) for gradient in gradients])
        after.append([np.asarray(variable) for variable in variables])
    for by_muon, by_sgd in zip(after[0][1:], after[1][1:], strict=True):
        np.testing.assert_array_equal(by_muon, by_sgd)
    # A gradient that stays the same has the same direction in both steps; the rates are twice the learning rates.
    direction = orthogonal(tf.constant(gradients[0].reshape(72, 6))).numpy()
    expected = weights[0].reshape(72, 6)
    for rate in (0.2, 0.1):
        expected = expected * 6**0.5 / np.linalg.norm(expected) - rate * direction
    np.testing.assert_allclose(after[0][0].reshape(72, 6), expected, atol=2e-5)


def test_a_kernel_of_a_pretrained_part_has_its_own_rate_with_muon():
    optimizer = build_optimizer(Optimizer(name="muon", learning_rate=0.1))
    rng = np.random.default_rng(0)
    weight, gradient = (rng.normal(size=(3, 3, 8, 8)).astype(np.float32) for _ in range(2))
    kernels = [keras.Variable(weight, name="kernel") for _ in range(2)]
    optimizer.build(kernels)
    optimizer.rate_factors = [0.01, 1.0]
    optimizer.apply([tf.constant(gradient)] * 2)
    start = weight * 8**0.5 / np.linalg.norm(weight)
    slow, fast = (np.asarray(kernel) - start for kernel in kernels)
    np.testing.assert_allclose(100 * slow, fast, atol=1e-4)
    assert 0.04 < np.linalg.norm(fast) / 8**0.5 < 0.06


def test_keys_of_muon_are_refused_for_others():
    with pytest.raises(ValueError, match="kernel_rate: for 'muon' only, not for 'adamw'"):
        Optimizer(name="adamw", kernel_rate=0.1)
    with pytest.raises(ValueError, match="momentum: muon needs one above 0"):
        Optimizer(name="muon", momentum=0)
