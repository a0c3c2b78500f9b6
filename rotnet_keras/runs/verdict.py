"""Is the model learning? The answer in one sentence, from a run's events."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rotnet_keras.runs.events import Event
from rotnet_keras.text import percent

# Differences of accuracies: what counts as above chance, as overfitting, and as progress.
ABOVE_CHANCE = 0.05
OVERFIT_GAP = 0.15
PROGRESS = 0.005
# From this accuracy on, little is left to gain, and a plateau is not a bad sign.
NEARLY_ALL = 0.9
# Progress is judged over this many epochs, or step events before the first validation.
WINDOW = 5
# What the error message of a diverged run contains.
DIVERGED = ("loss became", "weights became")


@dataclass(frozen=True)
class Verdict:
    """The answer.

    Attributes:
        level: one of unknown, chance, improving, flat, overfitting, diverged.
        text: a sentence for people.
    """

    level: str
    text: str


def verdict(events: Sequence[Event], angles: int = 4) -> Verdict:
    """Judge a training by its step, epoch and end events; other kinds are ignored.

    Args:
        events: in order; step events may be missing.
        angles: the number of rotations, or of classes; chance is one divided by it.
    """
    steps = [e for e in events if e["kind"] == "step"]
    validated = [e for e in events if e["kind"] == "epoch" and "validation" in e]
    end = events[-1] if events and events[-1]["kind"] == "end" else {}
    if (steps and steps[-1].get("loss") is None) or any(sign in str(end.get("message")) for sign in DIVERGED):
        return Verdict("diverged", "Diverged: the loss is no longer a finite number. A lower learning rate may help.")
    if not steps and not validated:
        return Verdict("unknown", "No training step yet.")
    chance = 1 / angles
    if not validated:
        return _by_training([e["accuracy"] for e in steps], steps, chance, angles)
    values = [e["validation"]["accuracy"] for e in validated]
    count = len(values)
    last, train = values[-1], validated[-1]["accuracy"]
    now = f"validation {percent(last)} (chance {percent(chance, 0)})"
    if last < chance + ABOVE_CHANCE:
        return Verdict(
            "chance", f"At chance after {_epochs(count)}: check the learning rate and the images. {_capitalised(now)}."
        )
    if train - last > OVERFIT_GAP:
        return Verdict("overfitting", f"Overfitting: training {percent(train)}, {now}.")
    if count == 1:
        return Verdict("improving", f"Learning: {now} after one epoch.")
    back = min(WINDOW, count - 1)
    gain = last - values[-1 - back]
    if end.get("outcome") == "finished":
        return Verdict("improving", f"Learned: {now}, best {percent(max(values))}.")
    gained = f"{100 * gain:+.1f} points"
    if gain >= PROGRESS:
        return Verdict("improving", f"Learning: {now}, {gained} in {_epochs(back)}.")
    if last >= NEARLY_ALL:
        return Verdict("improving", f"Near its ceiling: {now}, {gained} in {_epochs(back)}.")
    return Verdict("flat", f"No progress in {_epochs(back)} ({gained}): {now}, best {percent(max(values))}.")


def _by_training(values: Sequence[float], steps: Sequence[Event], chance: float, angles: int) -> Verdict:
    """Judge by the training accuracy and loss of the last step events, before the first validation."""
    recent = values[-WINDOW:]
    accuracy = sum(recent) / len(recent)
    loss = float(steps[-1]["loss"])
    reached = f"training {percent(accuracy)} (chance {percent(chance, 0)})"
    now = f"{reached} at step {steps[-1]['step']}; not validated yet"
    if loss > 3 * math.log(angles):
        return Verdict("diverged", f"The loss, {loss:.2f}, is far above that of chance, {math.log(angles):.2f}: {now}.")
    if accuracy < chance + ABOVE_CHANCE:
        return Verdict("unknown" if len(values) < 2 * WINDOW else "chance", f"Near chance so far: {now}.")
    return Verdict("improving", f"Learning: {now}.")


def _epochs(count: int) -> str:
    return "one epoch" if count == 1 else f"{count} epochs"


def _capitalised(text: str) -> str:
    return text[0].upper() + text[1:]
