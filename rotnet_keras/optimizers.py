"""Optimizers by name, with the weight decay of the released code."""

from rotnet_keras.engine import keras, tf
from rotnet_keras.schema import Optimizer


class TorchSGD(keras.optimizers.SGD):
    """SGD as PyTorch computes it: weight decay in the gradient, learning rate outside the momentum.

    With gradient g, weight w, velocity v, momentum m and decay d:

        g <- g + d * w;  v <- m * v + g;  w <- w - lr * (g + m * v)  (Nesterov)  or  w - lr * v

    Keras's own `weight_decay` is applied outside the momentum, about ten times as weakly at m = 0.9, and
    its velocity holds the learning rate of past steps, which differs after each drop of the rate. As in
    the released code every trainable variable decays, batch normalisation and biases included.

    Args:
        coupled_decay: d above, 5e-4 in the paper's runs.
        **options: those of `keras.optimizers.SGD`.
    """

    def __init__(self, coupled_decay: float = 0.0, **options: object) -> None:
        super().__init__(**options)
        self.coupled_decay = coupled_decay

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor) -> None:
        """Change one variable."""
        rate = tf.cast(learning_rate, variable.dtype)
        gradient = tf.cast(gradient, variable.dtype) + self.coupled_decay * variable
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
        return {**super().get_config(), "coupled_decay": self.coupled_decay}


def build_optimizer(spec: Optimizer) -> keras.optimizers.Optimizer:
    """The optimizer that a recipe asks for; the learning rate is set before every step.

    AdamW decays the weights as its authors do, outside the gradient, and leaves out biases and batch
    normalisation.
    """
    if spec.name == "adamw":
        optimizer = keras.optimizers.AdamW(spec.learning_rate, weight_decay=spec.weight_decay, beta_1=spec.momentum)
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
        return optimizer
    return TorchSGD(
        coupled_decay=spec.weight_decay,
        learning_rate=spec.learning_rate,
        momentum=spec.momentum,
        nesterov=spec.nesterov,
    )
