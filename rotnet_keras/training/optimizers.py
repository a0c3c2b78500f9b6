"""Optimizers: SGD with PyTorch's weight decay, Muon, AdamW, and a learning-rate factor for each variable."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from rotnet_keras.config.sections import Optimizer
from rotnet_keras.engine import keras, tf

# Kernels between no more channels than this are updated by SGD also where others are by Muon.
PIXEL_CHANNELS = 4
# Muon's rate and momentum of kernels, where a recipe says none.
KERNEL_RATE, KERNEL_MOMENTUM = 0.05, 0.6
# Coefficients and number of Jordan's iterations a x + b x^3 + c x^5, which bring singular values near 1 fast.
NEWTON_SCHULZ, NEWTON_SCHULZ_STEPS = (3.4445, -4.7750, 2.0315), 4
# The names of variables without weight decay, where not all decay.
UNDECAYED = ("bias", "gamma", "beta")


class RatePerVariable(keras.optimizers.Optimizer):
    """A mixin for optimizers: a factor of the learning rate for each variable, and an EMA that only evaluation uses.

    Attributes:
        rate_factors: one factor for each trainable variable, in the order of `build`; 1 for all where empty. Set them
            with `scale_learning_rate`.
        gradient_norm: float32, the Euclidean norm of the last step's gradient over all variables, before clipping and
            weight decay; None before `build`, and where several replicas have a gradient each.
    """

    rate_factors: Sequence[float] = ()
    gradient_norm: tf.Variable | None = None

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Create the variables of the optimizer."""
        super().build(variables)
        if tf.distribute.get_strategy().num_replicas_in_sync == 1:
            # No variable of Keras: a checkpoint does not hold it.
            self.gradient_norm = tf.Variable(0.0, trainable=False, name="gradient_norm")

    def apply(self, grads: Sequence[tf.Tensor], trainable_variables: Sequence[keras.Variable] | None = None) -> None:
        """Update the variables by their gradients."""
        if self.gradient_norm is not None:
            self.gradient_norm.assign(tf.linalg.global_norm([tf.cast(g, "float32") for g in grads if g is not None]))
        super().apply(grads, trainable_variables)

    def rate_factor(self, variable: tf.Variable) -> float:
        """The factor of one variable."""
        return self.rate_factors[self._get_variable_index(variable)] if self.rate_factors else 1.0

    def finalize_variable_values(self, var_list: Sequence[keras.Variable]) -> None:
        """Do nothing. Keras calls this after each `fit`, which is an epoch here: training would go on from the EMA."""

    def assign_ema(self, variables: Sequence[keras.Variable]) -> None:
        """Set the trainable variables to their EMA, if there is one."""
        super().finalize_variable_values(variables)


class TorchSGD(RatePerVariable, keras.optimizers.SGD):
    """SGD as PyTorch computes it: weight decay in the gradient, learning rate outside the momentum.

    With gradient g, weight w, velocity v, momentum m and decay d:

        g <- g + d * w;  v <- m * v + g;  w <- w - lr * (g + m * v)  (Nesterov)  or  w - lr * v

    Keras's own `weight_decay` is applied outside the momentum, about ten times as weakly at m = 0.9, and
    its velocity holds the learning rate of past steps, which differs after each drop of the rate. As in
    the released code every trainable variable decays by default, batch normalisation and biases included.

    Args:
        coupled_decay: d above, 5e-4 in the paper's runs.
        kernels_only: do not decay biases and the scales and offsets of batch normalisation, as in later work.
        **options: arguments of `keras.optimizers.SGD`.
    """

    def __init__(self, coupled_decay: float = 0.0, kernels_only: bool = False, **options: object) -> None:
        super().__init__(**options)
        self.coupled_decay, self.kernels_only = coupled_decay, kernels_only

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Create the velocities, and mark which variables decay."""
        super().build(variables)
        self._decays = [not self.kernels_only or variable.name not in UNDECAYED for variable in variables]

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor) -> None:
        """Update one variable."""
        rate = tf.cast(learning_rate, variable.dtype) * self.rate_factor(variable)
        gradient = tf.cast(gradient, variable.dtype)
        if self._decays[self._get_variable_index(variable)]:
            gradient += self.coupled_decay * variable
        if not self.momentum:
            self.assign_sub(variable, rate * gradient)
            return
        # One pass over weights and velocities instead of seven: large heads spend most of a step here.
        tf.raw_ops.ResourceApplyMomentum(
            var=variable.handle,
            accum=self.momentums[self._get_variable_index(variable)].value.handle,
            lr=rate,
            grad=gradient,
            momentum=tf.constant(self.momentum, variable.dtype),
            use_nesterov=self.nesterov,
        )

    def get_config(self) -> dict[str, object]:
        """The configuration, as Keras saves it."""
        return {**super().get_config(), "coupled_decay": self.coupled_decay, "kernels_only": self.kernels_only}


class Muon(TorchSGD):
    """SGD, and for the kernels of convolutions Muon: each step goes along an orthogonal matrix.

    With gradient g, kernel w as a matrix (height * width * inputs, outputs), velocity v, momentum m and rate r:

        v <- m * v + g;  w <- w * sqrt(k) / |w| - r * O(g + m * v)

    O(x) is roughly U V^T of the singular value decomposition x = U S V^T, and k is the smaller side of w, so that a
    step changes a kernel by the share r of its norm. The scale of a kernel before a batch normalisation has no effect
    on the outputs, and fixing it makes weight decay superfluous. All other variables, and the kernels of inputs of up
    to four channels, are updated by SGD. (Jordan et al., Muon, 2024; the fixed norm is that of airbench.) Keras's own
    Muon leaves the kernels of convolutions to AdamW, which is why this class exists.

    Args:
        kernel_factor: r over the learning rate.
        kernel_momentum: m.
        **options: arguments of `TorchSGD`, for the other variables.
    """

    def __init__(self, kernel_factor: float, kernel_momentum: float, **options: Any) -> None:
        super().__init__(**options)
        self.kernel_factor, self.kernel_momentum = kernel_factor, kernel_momentum

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor) -> None:
        """Update one variable."""
        if len(variable.shape) != 4 or min(variable.shape[2:]) <= PIXEL_CHANNELS:
            super().update_step(gradient, variable, learning_rate)
            return
        velocity = self.momentums[self._get_variable_index(variable)]
        gradient = tf.cast(gradient, variable.dtype)
        moved = self.kernel_momentum * tf.convert_to_tensor(velocity) + gradient
        self.assign(velocity, moved)
        direction = orthogonal(tf.reshape(gradient + self.kernel_momentum * moved, [-1, variable.shape[3]]))
        kernel = tf.convert_to_tensor(variable)
        kernel *= min(direction.shape) ** 0.5 / tf.norm(kernel)
        rate = tf.cast(learning_rate, variable.dtype) * self.kernel_factor * self.rate_factor(variable)
        self.assign(variable, kernel - rate * tf.reshape(direction, variable.shape))

    def get_config(self) -> dict[str, object]:
        """The configuration, as Keras saves it."""
        factors = {"kernel_factor": self.kernel_factor, "kernel_momentum": self.kernel_momentum}
        return {**super().get_config(), **factors}


def orthogonal(matrix: tf.Tensor) -> tf.Tensor:
    """Return a matrix with the singular vectors of this one and singular values near 1, by Newton-Schulz iterations.

    Args:
        matrix: (M, N) float32.

    Returns:
        (M, N) float32, with singular values between 0.6 and 1.2 where those of `matrix` do not differ by more than a
        factor of 100. It is computed in the precision of the layers, and in float32 where that is float16.
    """
    precision = keras.config.dtype_policy().compute_dtype
    tall = matrix.shape[0] > matrix.shape[1]
    x = tf.cast(matrix / (tf.norm(matrix) + 1e-7), "float32" if precision == "float16" else precision)
    for _ in range(NEWTON_SCHULZ_STEPS):
        square = tf.matmul(x, x, transpose_a=tall, transpose_b=not tall)
        polynomial = NEWTON_SCHULZ[1] * square + NEWTON_SCHULZ[2] * tf.matmul(square, square)
        x = NEWTON_SCHULZ[0] * x + (tf.matmul(x, polynomial) if tall else tf.matmul(polynomial, x))
    return tf.cast(x, tf.float32)


class AdamW(RatePerVariable, keras.optimizers.Adam):
    """Adam with the weight decay of Loshchilov and Hutter, outside the gradient: w <- w - lr * d * w.

    Biases and the scales and offsets of batch normalisation do not decay. Keras's own AdamW cannot scale the decay by
    a rate of each variable, which is why this class exists.

    Args:
        decay: d above.
        **options: arguments of `keras.optimizers.Adam`.
    """

    def __init__(self, decay: float = 0.0, **options: object) -> None:
        super().__init__(**options)
        self.decay = decay

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Create the moments, and mark which variables decay."""
        super().build(variables)
        self._decays = [variable.name not in UNDECAYED for variable in variables]

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor) -> None:
        """Update one variable."""
        rate = tf.cast(learning_rate, variable.dtype) * self.rate_factor(variable)
        if self.decay and self._decays[self._get_variable_index(variable)]:
            self.assign_sub(variable, rate * self.decay * variable)
        super().update_step(gradient, variable, rate)

    def get_config(self) -> dict[str, object]:
        """The configuration, as Keras saves it."""
        return {**super().get_config(), "decay": self.decay}


def build_optimizer(spec: Optimizer) -> keras.optimizers.Optimizer:
    """Make the optimizer of a recipe.

    Args:
        spec: the recipe's section `optimizer`.

    Returns:
        A `TorchSGD`, a `Muon` or an `AdamW` with the section's peak learning rate; the `LearningRate` callback sets the
        rate of every step.

    Example:
        >>> from rotnet_keras.config.sections import Optimizer
        >>> build_optimizer(Optimizer(learning_rate=0.1, momentum=0.9, weight_decay=5e-4)).coupled_decay
        0.0005
    """
    options: dict[str, Any] = {"learning_rate": spec.learning_rate}
    if spec.clip:
        options["global_clipnorm"] = spec.clip
    if spec.ema:
        options |= {"use_ema": True, "ema_momentum": spec.ema}
    if spec.name == "adamw":
        return AdamW(decay=spec.weight_decay, beta_1=spec.momentum, **options)
    options |= {"coupled_decay": spec.weight_decay, "kernels_only": spec.decay == "kernels"}
    options |= {"momentum": spec.momentum, "nesterov": spec.nesterov}
    if spec.name == "muon":
        factor = (spec.kernel_rate or KERNEL_RATE) / spec.learning_rate
        return Muon(factor, spec.kernel_momentum or KERNEL_MOMENTUM, **options)
    return TorchSGD(**options)


@contextmanager
def using_averaged_weights(model: keras.Model, spec: Optimizer) -> Iterator[None]:
    """Give the model the EMA of its weights for the block, if the recipe keeps one; restore the weights after it."""
    if not spec.ema:
        yield
        return
    now = [np.array(variable) for variable in model.trainable_variables]
    assign_averaged_weights(model, spec)
    try:
        yield
    finally:
        for variable, value in zip(model.trainable_variables, now, strict=True):
            variable.assign(value)


def assign_averaged_weights(model: keras.Model, spec: Optimizer) -> None:
    """Set the weights of the model to their EMA, if the recipe keeps one."""
    if spec.ema:
        updating_optimizer(model).assign_ema(model.trainable_variables)


def scale_learning_rate(
    model: keras.Model, factor: float, fresh: Sequence[keras.Variable], bias_factor: float = 1.0
) -> None:
    """Multiply the learning rate of all trainable variables by a factor, except that of the fresh ones.

    Args:
        model: compiled with an optimizer of `build_optimizer`, which is built.
        factor: of the learning rate of every step.
        fresh: the variables that keep the whole learning rate.
        bias_factor: of the learning rate of biases, fresh or not, on top.
    """
    fresh_ids = {id(variable) for variable in fresh}
    updating_optimizer(model).rate_factors = [
        (1.0 if id(variable) in fresh_ids else factor) * (bias_factor if variable.name == "bias" else 1.0)
        for variable in model.trainable_variables
    ]


def updating_optimizer(model: keras.Model) -> RatePerVariable:
    """The optimizer of `build_optimizer` that updates the variables of a compiled model.

    In float16 `model.optimizer` is another one: Keras wraps an optimizer in one that scales the loss, and an attribute
    set on that is never read.
    """
    optimizer = model.optimizer
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        optimizer = optimizer.inner_optimizer
    assert isinstance(optimizer, RatePerVariable)
    return optimizer
