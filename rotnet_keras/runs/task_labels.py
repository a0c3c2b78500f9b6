"""What a run is trained to predict: the names of its task's classes and scores."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rotnet_keras.runs.events import Event
from rotnet_keras.runs.folder import RunFolder

# With more classes than this, the confusion matrix would add megabytes to every event.
MAX_CONFUSION_CLASSES = 256
# Backbones with a tap after each of any number of blocks.
BACKBONES_OF_BLOCKS = ("nin", "compact", "airbench")
# For each task of a transfer: the name of the accuracy during training, and of the score in the end.
TRANSFER_NAMES = {
    "classification": ("top-1 accuracy", "mean average precision"),
    "detection": ("region accuracy", "mean average precision"),
    "segmentation": ("pixel accuracy", "mean IoU"),
}
# Scores that an event may have besides the main one, and how they are computed.
OTHER_SCORES = {
    "score_area": "area under the precision-recall curve",
    "score_eleven_points": "eleven-point precision, as in VOC 2007",
    "score_area_one_crop": "area under the curve, central crop only",
    "score_coco": "mean over ten IoU thresholds, as in COCO",
    "score_one_crop": "eleven-point precision, central crop only",
}


@dataclass(frozen=True)
class Task:
    """A classification, possibly of regions or pixels.

    Attributes:
        accuracy_name: what the share of correct predictions is called.
        classes: names in the order of the labels; empty as long as they are not known.
        score_name: what the final score is called, if it is not the accuracy.
    """

    accuracy_name: str
    classes: tuple[str, ...]
    score_name: str = ""

    @property
    def num_classes(self) -> int:
        """The number of classes, for the accuracy of chance; at least 2."""
        return max(2, len(self.classes))


def score_of(event: Event) -> float:
    """Return the result of an evaluation, 0 to 1: the score of its task if there is one, else the accuracy.

    Of classification on VOC it is the mean area under the curve. Earlier versions wrote eleven-point precision as its
    `score`, which is not what the paper reports, and the area beside it.
    """
    if {"score_one_crop", "score_area"} <= event.keys() and "score_eleven_points" not in event:
        return float(event["score_area"])
    return float(event["score"] if "score" in event else event["accuracy"])


def task_of(run: RunFolder) -> Task:
    """Return the task of a run. The classes come from its recipe, or from its data once they have been read."""
    values = run.recipe_values()
    known = run.facts().get("data", {}).get("classes", [])
    classes = tuple(map(str, known)) if isinstance(known, list) else ()
    if values.get("kind") == "transfer" and values.get("task") in TRANSFER_NAMES:
        accuracy, score = TRANSFER_NAMES[values["task"]]
        return Task(accuracy, classes, score)
    if values.get("kind") == "classify":
        return Task("accuracy", classes)
    angles = values.get("rotation", {}).get("angles")
    angles = angles if isinstance(angles, list) else [0, 90, 180, 270]
    return Task("rotation accuracy", tuple(f"{angle}°" for angle in angles))


def backbone_blocks(run: RunFolder) -> int | None:
    """Return the number of blocks of the NIN or compact backbone that a run trains or probes; None for any other.

    A probe says in `run.json` what it read. Where it does not, as in old folders, the run that made the file does.
    """
    section = run.recipe_values().get("backbone", {})
    if "name" in section:
        return section.get("blocks")
    read = run.facts().get("backbone")
    if read:
        return len(read.get("taps", ())) if read.get("name") in BACKBONES_OF_BLOCKS else None
    maker = RunFolder(Path(section["file"]).absolute().parent.parent) if "file" in section else None
    return maker.recipe_values().get("backbone", {}).get("blocks") if maker else None


def confusion_fields(confusion: list[list[int]]) -> dict[str, Any]:
    """Return the fields of an event for a confusion matrix: `per_class` recall, and `confusion` unless it is too large.

    Args:
        confusion: counts; rows are true classes, columns are predicted ones.
    """
    kept = confusion if len(confusion) <= MAX_CONFUSION_CLASSES else []
    return {"per_class": per_class_recall(confusion), "confusion": kept}


def per_class_scores(event: Event) -> list[float | None]:
    """Return the recall, or the score, of each class from an event; None for a class that could not be scored."""
    return list(event.get("per_class") or per_class_recall(event.get("confusion", [])))


def per_class_recall(confusion: list[list[int]]) -> list[float]:
    """Return the recall of each class, 0 to 1; rows of the confusion matrix are true classes."""
    return [row[i] / max(1, sum(row)) for i, row in enumerate(confusion)]
