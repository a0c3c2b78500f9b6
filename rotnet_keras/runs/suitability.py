"""Is rotation a sensible task for a run's images? Sentences, worked out from what a `suitability` event measured."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rotnet_keras.runs.events import Event
from rotnet_keras.runs.verdict import ABOVE_CHANCE

QUESTION = "Is rotation a sensible task for these images?"

# From which share of what there is to know above chance a giveaway counts. Of real images without one (CIFAR-10,
# scenes, PASCAL VOC) a simple model knew 0.1 by what is at the same place, 0.2 by the grid and 0.55 by sharpness; of
# clothes that all lie alike 0.5 and 0.3 by the first two, of small images that were stretched 0.7 by the last.
KNOWN = {"marks": 0.6, "grid": 0.65, "sharpness": 0.8}
# The share of images with bars from which these count.
BARRED = 0.1
# By how much more than by chance a part must be followed, and how many times as often as the rest: a rim has sky and
# ground in it, too, and a network of photos without a shortcut followed it in 0.44 of cases and the rest in 0.32; one
# of such photos with a white line along their upper edge, in 0.996 and never.
FOLLOWED, TIMES = 0.1, 2
# The share of its knowledge that a network loses with the finest traces.
LOST = 0.8

NAMES = {
    "marks": "what is at the same place in all images: watermark, caption, border, or the subject itself",
    "grid": "JPEG's grid of blocks",
    "sharpness": "traces in one direction: stretching, scan lines, colour at half the width",
    "bars": "bars of one colour: letterboxing",
    "rim": "in the network: the rim",
    "alike": "in the network: the quarter of the pixels that is most alike in all images",
    "finest": "in the network: the finest traces",
}


@dataclass(frozen=True)
class Finding:
    """What was looked for, what was measured, and whether it gives the turn away."""

    name: str
    measured: str
    likely: bool


def suitability_of(events: Sequence[Event]) -> Event | None:
    """The newest event that tells; None where there is none."""
    return next((event for event in reversed(events) if event["kind"] == "suitability"), None)


def findings(event: Event) -> list[Finding]:
    """One for each thing that was looked for; none where there were too few images.

    What another version looked for, and this one does not know, is passed over.
    """
    chance = 1 / len(event["angles"])
    axes = len({angle % 180 for angle in event["angles"]})
    found = []
    for key, told in {**event["giveaways"], **event["reliance"]}.items():
        if key == "bars":
            measured = f"{_percent(told['share'])} of the images have them at two opposite sides only"
            likely = told["share"] >= BARRED
        elif key in KNOWN:
            measured = f"by them alone a simple model tells {_shares(key, told, chance, axes)}"
            known = [_known(told["axis"], 1 / axes)] if "axis" in told else []
            known += [] if key == "sharpness" else [_known(told["accuracy"], chance)]
            likely = max(known) >= KNOWN[key]
        elif key == "finest":
            accuracy = accuracy_of(event)
            measured = f"{_percent(told['accuracy'])} of angles are right when they are smoothed away, else "
            measured += _percent(accuracy)
            lost = (accuracy - told["accuracy"]) / max(accuracy - chance, 1e-6)
            likely = accuracy > chance + FOLLOWED and lost >= LOST
        elif key in NAMES:
            measured = f"taken from an image turned otherwise, {_percent(told['part'])} of answers go by it and "
            measured += f"{_percent(told['rest'])} by the larger rest"
            likely = told["part"] > max(TIMES * told["rest"], chance + FOLLOWED)
        else:
            continue
        found.append(Finding(NAMES[key], measured, likely))
    return found


def accuracy_of(event: Event) -> float:
    """Of the copies of the images that were looked at."""
    right = event["right"]
    return sum(copies * images for copies, images in enumerate(right)) / max(1, (len(right) - 1) * sum(right))


def by_image(event: Event) -> str:
    """How images fared, in a sentence or three."""
    right, count = event["right"], max(1, event["images"])
    told = f"Of {event['images']:,} {event['split']} images, {_percent(right[-1] / count)} are right in every turn and "
    told += (
        f"{_percent(right[0] / count)} in none; {_percent(event['undecided'])} are undecided: by all copies together "
    )
    told += "no turn is as probable as one half."
    opposites = {(angle + 180) % 360 for angle in event["angles"]} & set(event["angles"])
    if event["half_turns"] is not None and opposites and len(event["angles"]) > 2:
        by_chance = _percent(1 / (len(event["angles"]) - 1))
        told += f" {_percent(event['half_turns'])} of the mistakes are by half a turn (by chance {by_chance})."
    return told


def summary(event: Event) -> str:
    """The answer in a sentence or two."""
    accuracy, chance = accuracy_of(event), 1 / len(event["angles"])
    now = f"{_percent(accuracy)} of angles are right (chance {_percent(chance)})"
    likely = [finding.name for finding in findings(event) if finding.likely]
    if likely:
        return f"Doubtful: a shortcut is likely ({'; '.join(likely)}). {now[0].upper()}{now[1:]}."
    if 100 * accuracy < 100 * chance + ABOVE_CHANCE:
        return f"Not so far: {now}. The images have no upright, or the training was too short to find it."
    looked = "no shortcut was found" if event["giveaways"] else "too few images to look for shortcuts"
    return f"It seems so: {now}, and {looked}."


def section(event: Event) -> dict[str, Any]:
    """What a report says of it."""
    rows = [[f.name, f.measured, "likely" if f.likely else "no"] for f in findings(event)]
    return {"question": QUESTION, "answer": summary(event), "by_image": by_image(event), "rows": rows}


def _known(accuracy: float, chance: float) -> float:
    return (accuracy - chance) / (1 - chance)


def _shares(key: str, told: dict[str, float], chance: float, axes: int) -> str:
    words = [] if key == "sharpness" else [f"{_percent(told['accuracy'])} of turns (chance {_percent(chance)})"]
    if "axis" in told:
        words.append(f"{_percent(told['axis'])} of axes, upright or lying (chance {_percent(1 / axes)})")
    return ", ".join(words)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
