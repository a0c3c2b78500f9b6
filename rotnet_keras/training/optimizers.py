"""Optimizers by name, with the weight decay of the released code, and a learning rate for each variable."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from rotnet_keras.config.sections import Optimizer
from rotnet_keras.engine import keras, tf

UNDECAYED = ("bias", "gamma", "beta")


class RatePerVariable(keras.optimizers.Optimizer):
    """What lets an optimizer give some variables a part of the learning rate.

    Attributes:
        rate_factors: one number for each trainable variable, in the order they were built in; all 1 where empty.
    """

    rate_factors: Sequence[float] = ()

    def rate_factor(self, variable: tf.Variable) -> float:
        """What the learning rate is multiplied by for a variable."""
        return self.rate_factors[self._get_variable_index(variable)] if self.rate_factors else 1.0


class TorchSGD(RatePerVariable, keras.optimizers.SGD):
    """SGD as PyTorch computes it: weight decay in the gradient, learning rate outside the momentum.

    With gradient g, weight w, velocity v, momentum m and decay d:

        g <- g + d * w;  v <- m * v + g;  w <- w - lr * (g + m * v)  (Nesterov)  or  w - lr * v

    Keras's own `weight_decay` is applied outside the momentum, about ten times as weakly at m = 0.9, and
    its velocity holds the learning rate of past steps, which differs after each drop of the rate. As in
    the released code every trainable variable decays, batch normalisation and biases included, unless said otherwise.

    Args:
        coupled_decay: d above, 5e-4 in the paper's runs.
        kernels_only: leave biases and the scales and offsets of batch normalisation without decay, as later work does.
        **options: those of `keras.optimizers.SGD`.
    """

    def __init__(self, coupled_decay: float = 0.0, kernels_only: bool = False, **options: object) -> None:
        super().__init__(**options)
        self.coupled_decay, self.kernels_only = coupled_decay, kernels_only

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Make the velocities, and note which variables decay."""
        super().build(variables)
        self._decays = [not self.kernels_only or variable.name not in UNDECAYED for variable in variables]

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor) -> None:
        """Change one variable."""
        rate = tf.cast(learning_rate, variable.dtype) * self.rate_factor(variable)
        gradient = tf.cast(gradient, variable.dtype)
        if self._decays[self._get_variable_index(variable)]:
            gradient += self.coupled_decay * variable
        if not self.momentum:
            self.assign_sub(variable, rate * gradient)
            return
        # Large heads spend their time here: one pass over weights and velocities instead of seven.
        tf.raw_ops.ResourceApplyMomentum(
            var=variable.handle,
            accum=self.momentums[self._get_variable_index(variable)].value.handle,
            lr=rate,
            grad=gradient,
            momentum=tf.constant(self.momentum, variable.dtype),
            use_nesterov=self.nesterov,
        )

    def get_config(self) -> dict[str, object]:
        """Keras's configuration of the optimizer."""
        return {**super().get_config(), "coupled_decay": self.coupled_decay, "kernels_only": self.kernels_only}


class AdamW(RatePerVariable, keras.optimizers.Adam):
    """Adam with the weight decay of Loshchilov and Hutter, outside the gradient: w <- w - lr * d * w.

    Biases and the scales and offsets of batch normalisation do not decay. Keras's own AdamW has one rate
    for the decay of all variables.

    Args:
        decay: d above.
        **options: those of `keras.optimizers.Adam`.
    """

    def __init__(self, decay: float = 0.0, **options: object) -> None:
        super().__init__(**options)
        self.decay = decay

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Make the moments, and note which variables decay."""
        super().build(variables)
        self._decays = [variable.name not in UNDECAYED for variable in variables]

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor) -> None:
        """Change one variable."""
        rate = tf.cast(learning_rate, variable.dtype) * self.rate_factor(variable)
        if self.decay and self._decays[self._get_variable_index(variable)]:
            self.assign_sub(variable, rate * self.decay * variable)
        super().update_step(gradient, variable, rate)

    def get_config(self) -> dict[str, object]:
        """Keras's configuration of the optimizer."""
        return {**super().get_config(), "decay": self.decay}


def build_optimizer(spec: Optimizer) -> keras.optimizers.Optimizer:
    """The optimizer that a recipe asks for; the learning rate is set before every step."""
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
    """For as long as this lasts the model has the weights that count: their averages, if the recipe keeps any."""
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
    """Give the model the averages of its weights, if the recipe keeps any."""
    if spec.ema:
        # Under float16 the optimizer is wrapped in one that scales losses.
        optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
        optimizer.finalize_variable_values(model.trainable_variables)
