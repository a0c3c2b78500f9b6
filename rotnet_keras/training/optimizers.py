"""Optimizers: SGD with PyTorch's weight decay, AdamW, and a learning-rate factor for each variable."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from rotnet_keras.config.sections import Optimizer
from rotnet_keras.engine import keras, tf

# The names of variables without weight decay, where not all decay.
UNDECAYED = ("bias", "gamma", "beta")


class RatePerVariable(keras.optimizers.Optimizer):
    """A mixin for optimizers: a factor of the learning rate for each variable, and an EMA that only evaluation uses.

    Attributes:
        rate_factors: one factor for each trainable variable, in the order of `build`; 1 for all where empty. Set them
            with `scale_learning_rate`.
    """

    rate_factors: Sequence[float] = ()

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
        A `TorchSGD` or an `AdamW` with the section's peak learning rate; the `LearningRate` callback sets the rate of
        every step.

    Example:
        >>> from rotnet_keras.config.sections import Optimizer
        >>> build_optimizer(Optimizer(learning_rate=0.1, momentum=0.9, weight_decay=5e-4)).coupled_decay
        0.0005
    """
    options: dict[str, object] = {"learning_rate": spec.learning_rate}
    if spec.clip:
        options["global_clipnorm"] = spec.clip
    if spec.ema:
        options |= {"use_ema": True, "ema_momentum": spec.ema}
    if spec.name == "adamw":
        return AdamW(decay=spec.weight_decay, beta_1=spec.momentum, **options)
    return TorchSGD(
        coupled_decay=spec.weight_decay,
        kernels_only=spec.decay == "kernels",
        momentum=spec.momentum,
        nesterov=spec.nesterov,
        **options,
    )


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
