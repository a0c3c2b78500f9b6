"""Does the network learn? One sentence, worked out from a run's events."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rotnet_keras.runs.events import Event

# In points of accuracy: what counts as above chance, as a gap to the training images, as progress.
ABOVE_CHANCE = 5.0
OVERFIT_GAP = 15.0
PROGRESS = 0.5
# Where little is left to gain, standing still is no bad sign.
NEARLY_ALL = 90.0
# Epochs, or step events where there are no epochs yet, that progress is judged over.
WINDOW = 5
# What the last words of a run that diverged hold.
DIVERGED = ("loss became", "weights became")


@dataclass(frozen=True)
class Verdict:
    """`level` is one of: unknown, chance, improving, flat, overfitting, diverged."""

    level: str
    text: str


def verdict(events: Sequence[Event], angles: int = 4) -> Verdict:
    """Judge a pretraining by its step, epoch and end events; others are passed over.

    Args:
        events: in order; the step events may be thinned out.
        angles: number of turns, whose inverse is chance.
    """
    steps = [e for e in events if e["kind"] == "step"]
    validated = [e for e in events if e["kind"] == "epoch" and "validation" in e]
    end = events[-1] if events and events[-1]["kind"] == "end" else {}
    if (steps and steps[-1].get("loss") is None) or any(sign in str(end.get("message")) for sign in DIVERGED):
        return Verdict(
            "diverged", "Diverged: the loss is not a finite number any more. A lower learning rate may help."
        )
    if not steps and not validated:
        return Verdict("unknown", "No step yet.")
    chance = 100 / angles
    if not validated:
        return _by_training([100 * e["accuracy"] for e in steps], steps, chance, angles)
    values = [100 * e["validation"]["accuracy"] for e in validated]
    count = len(values)
    last, train = values[-1], 100 * validated[-1]["accuracy"]
    now = f"validation {last:.1f} % (chance {chance:.0f} %)"
    if last < chance + ABOVE_CHANCE:
        return Verdict("chance", f"At chance after {_epochs(count)}: check learning rate and images. {_cap(now)}.")
    if train - last > OVERFIT_GAP:
        return Verdict("overfitting", f"Overfitting: training {train:.1f} %, {now}.")
    if count == 1:
        return Verdict("improving", f"Learning: {now} after one epoch.")
    back = min(WINDOW, count - 1)
    gain = last - values[-1 - back]
    if end.get("outcome") == "finished":
        return Verdict("improving", f"Learned: {now}, best {max(values):.1f} %.")
    if gain >= PROGRESS:
        return Verdict("improving", f"Learning: {now}, {gain:+.1f} points in {_epochs(back)}.")
    if last >= NEARLY_ALL:
        return Verdict("improving", f"Learned nearly all there is: {now}, {gain:+.1f} points in {_epochs(back)}.")
    return Verdict("flat", f"No progress in {_epochs(back)} ({gain:+.1f} points): {now}, best {max(values):.1f} %.")


def _by_training(values: Sequence[float], steps: Sequence[Event], chance: float, angles: int) -> Verdict:
    """Before the first validation: by the training accuracy and loss of the last step events."""
    recent = values[-WINDOW:]
    accuracy = sum(recent) / len(recent)
    loss = float(steps[-1]["loss"])
    now = f"training {accuracy:.1f} % (chance {chance:.0f} %) at step {steps[-1]['step']}; not validated yet"
    if loss > 3 * math.log(angles):
        return Verdict("diverged", f"The loss of {loss:.2f} is far above chance ({math.log(angles):.2f}): {now}.")
    if accuracy < chance + ABOVE_CHANCE:
        return Verdict("unknown" if len(values) < 2 * WINDOW else "chance", f"Near chance so far: {now}.")
    return Verdict("improving", f"Learning: {now}.")


def _epochs(count: int) -> str:
    return "one epoch" if count == 1 else f"{count} epochs"


def _cap(text: str) -> str:
    return text[0].upper() + text[1:]
