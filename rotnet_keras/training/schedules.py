"""The learning rate as a plain function of the step, so that a resumed run continues the same curve."""

import bisect
import math

from rotnet_keras.config.sections import Schedule


def learning_rate(schedule: Schedule, peak: float, step: int, steps_per_epoch: int, total_steps: int) -> float:
    """The learning rate of one optimizer step.

    Args:
        schedule: the recipe's section: the curve's name and parameters.
        peak: the highest rate, `optimizer.learning_rate`.
        step: 0 to `total_steps` - 1.
        steps_per_epoch: converts boundaries and warm-up given in epochs to steps.
        total_steps: the steps of the whole training.

    Returns:
        A rate in (0, `peak`].

    Example:
        >>> from rotnet_keras.config.sections import Schedule
        >>> learning_rate(Schedule(name="cosine"), 0.1, step=50, steps_per_epoch=10, total_steps=100)
        0.05
    """
    unit = steps_per_epoch if schedule.unit == "epochs" else 1
    if schedule.name == "one_cycle":
        top = schedule.peak * total_steps
        rising = (step + 1) / (top + 1)
        falling = (total_steps - step) / max(1.0, total_steps - top)
        return peak * min(rising, falling, 1.0)
    warmup = schedule.warmup * unit
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    if schedule.name == "piecewise":
        passed = bisect.bisect_right([boundary * unit for boundary in schedule.boundaries], step)
        return peak * schedule.factor**passed
    if schedule.name == "cosine":
        done = (step - warmup) / max(1.0, total_steps - warmup)
        return peak * 0.5 * (1 + math.cos(math.pi * done))
    return peak
