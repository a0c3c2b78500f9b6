"""Is rotation a sensible task for a run's images? Answers in sentences, from what a `suitability` event measured."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rotnet_keras.runs.events import Event
from rotnet_keras.runs.verdict import ABOVE_CHANCE
from rotnet_keras.text import percent

QUESTION = "Is rotation a sensible task for these images?"

# A shortcut counts as likely from these accuracies of a simple model on, rescaled so that chance is 0 and perfect is 1.
# On real images without a shortcut (CIFAR-10, scenes, PASCAL VOC) it reached 0.1 by fixed positions, 0.2 by the grid
# and 0.55 by sharpness; on clothes that all lie alike 0.5 and 0.3 by the first two, on small images that were stretched
# 0.7 by the last.
SIMPLE_MODEL_LIMITS = {"marks": 0.6, "grid": 0.65, "sharpness": 0.8}
# The share of images with bars from which bars count.
BARS_SHARE = 0.1
# A region is a shortcut if predictions follow it more often than chance by this margin, and this many times as often as
# the rest of the image. A border contains sky and ground, too: a network trained on photos without a shortcut followed
# it in 0.44 of cases and the rest in 0.32; one trained on such photos with a white line along their upper edge followed
# it in 0.996 and the rest never.
REGION_MARGIN, REGION_FACTOR = 0.1, 2
# Fine detail is a shortcut if smoothing it away loses this share of the accuracy above chance.
LOST_SHARE = 0.8

# By the key that the event has for each check: what is examined.
CHECKS = {
    "marks": "content at fixed positions: watermark, caption, border, or the subject itself",
    "grid": "JPEG block grid",
    "sharpness": "directional detail: stretching, scan lines, chroma subsampling",
    "bars": "bars of one colour: letterboxing",
    "rim": "reliance on the image border",
    "alike": "reliance on the quarter of the pixels that varies least between images",
    "finest": "reliance on the finest detail",
}


@dataclass(frozen=True)
class CheckResult:
    """The result of one check.

    Attributes:
        name: what was examined.
        measured: what was measured, in words.
        likely: whether it is likely to be a shortcut, which reveals the rotation without the content of the image.
    """

    name: str
    measured: str
    likely: bool


def latest_suitability(events: Sequence[Event]) -> Event | None:
    """Return the newest `suitability` event; None if there is none."""
    return next((event for event in reversed(events) if event["kind"] == "suitability"), None)


def check_results(event: Event) -> list[CheckResult]:
    """Return the result of each check; none if there were too few images for checks.

    Checks of other versions that this version does not know are skipped.
    """
    chance = 1 / len(event["angles"])
    axes = len({angle % 180 for angle in event["angles"]})
    results = []
    for key, found in {**event["giveaways"], **event["reliance"]}.items():
        if key == "bars":
            measured = f"{_percent(found['share'])} of the images have bars on two opposite sides only"
            likely = found["share"] >= BARS_SHARE
        elif key in SIMPLE_MODEL_LIMITS:
            measured = f"from this alone, a simple model predicts {_simple_model_accuracy(key, found, chance, axes)}"
            rescaled = [_above_chance(found["axis"], 1 / axes)] if "axis" in found and axes > 1 else []
            rescaled += [] if key == "sharpness" else [_above_chance(found["accuracy"], chance)]
            likely = max(rescaled, default=0.0) >= SIMPLE_MODEL_LIMITS[key]
        elif key == "finest":
            accuracy = rotation_accuracy(event)
            measured = f"accuracy with it smoothed away: {_percent(found['accuracy'])}; with it: {_percent(accuracy)}"
            lost = (accuracy - found["accuracy"]) / max(accuracy - chance, 1e-6)
            likely = accuracy > chance + REGION_MARGIN and lost >= LOST_SHARE
        elif key in CHECKS:
            measured = f"when it comes from an image with another rotation, {_percent(found['part'])} of predictions "
            measured += f"follow it and {_percent(found['rest'])} follow the rest"
            likely = found["part"] > max(REGION_FACTOR * found["rest"], chance + REGION_MARGIN)
        else:
            continue
        results.append(CheckResult(CHECKS[key], measured, likely))
    return results


def rotation_accuracy(event: Event) -> float:
    """Return the accuracy, 0 to 1, over all rotated copies of the examined images."""
    images_by_correct = event["right"]  # How many images have 0, 1, ... K of their K copies predicted correctly.
    correct = sum(copies * images for copies, images in enumerate(images_by_correct))
    return correct / max(1, (len(images_by_correct) - 1) * sum(images_by_correct))


def image_sentences(event: Event) -> str:
    """Say in a few sentences how consistent the predictions for each image are."""
    right, count = event["right"], max(1, event["images"])
    text = f"Of {event['images']:,} {event['split']} images, {_percent(right[-1] / count)} are predicted correctly in "
    text += f"all rotations and {_percent(right[0] / count)} in none. {_percent(event['undecided'])} are undecided: "
    text += "over all copies, no rotation has a probability of at least one half."
    opposites = {(angle + 180) % 360 for angle in event["angles"]} & set(event["angles"])
    if event["half_turns"] is not None and opposites and len(event["angles"]) > 2:
        by_chance = _percent(1 / (len(event["angles"]) - 1))
        text += f" {_percent(event['half_turns'])} of the errors are off by 180° (chance {by_chance})."
    return text


def summary(event: Event) -> str:
    """Answer the question in one or two sentences."""
    accuracy, chance = rotation_accuracy(event), 1 / len(event["angles"])
    now = f"{_percent(accuracy)} of rotations are predicted correctly (chance {_percent(chance)})"
    likely = [result.name for result in check_results(event) if result.likely]
    if likely:
        return f"Doubtful: a shortcut is likely ({'; '.join(likely)}). {now}."
    if accuracy < chance + ABOVE_CHANCE:
        return f"Not so far: {now}. The images have no upright orientation, or training was too short to learn it."
    looked = "no shortcut was found" if event["giveaways"] else "there were too few images to look for shortcuts"
    return f"Probably: {now}, and {looked}."


def report_section(event: Event) -> dict[str, Any]:
    """Return what a report shows: the question, its answer, sentences on single images, and a row for each check."""
    rows = [[r.name, r.measured, "likely" if r.likely else "no"] for r in check_results(event)]
    return {"question": QUESTION, "answer": summary(event), "by_image": image_sentences(event), "rows": rows}


def _above_chance(accuracy: float, chance: float) -> float:
    """Rescale an accuracy so that chance is 0 and perfect is 1."""
    return (accuracy - chance) / (1 - chance)


def _simple_model_accuracy(key: str, found: dict[str, float], chance: float, axes: int) -> str:
    """Say how many of the rotations, and of the axes (upright or sideways), a simple model predicts correctly."""
    words = [] if key == "sharpness" else [f"{_percent(found['accuracy'])} of rotations (chance {_percent(chance)})"]
    if "axis" in found:
        words.append(f"{_percent(found['axis'])} of axes, upright or sideways (chance {_percent(1 / axes)})")
    return ", ".join(words)


def _percent(share: float) -> str:
    return percent(share, digits=0)
