"""What a run's network is asked: which way an image is turned, or what is in it."""

from dataclasses import dataclass
from typing import Any

from rotnet_keras.runs.events import Event
from rotnet_keras.runs.folder import RunFolder

# With more answers than this a table of what was taken for what would be megabytes of every event.
MOST_COUNTED = 256
# Of tasks in transfer: what is followed in training, and what they are measured by.
TRANSFERS = {
    "classification": ("most likely class is there", "mean average precision"),
    "detection": ("class of the region", "mean average precision"),
    "segmentation": ("pixel accuracy", "mean IoU"),
}
# What an event may tell beside the score, and how that is worked out.
OTHER_SCORES = {
    "score_area": "area under the curves",
    "score_coco": "over ten overlaps, as COCO",
    "score_one_crop": "eleven points, central crop alone",
}


@dataclass(frozen=True)
class Task:
    """A question with a fixed list of answers.

    Attributes:
        accuracy: what the share of right answers is called.
        answers: in the order of the labels; empty while the classes are not known yet.
        score: what it is measured by in the end, where that is not the accuracy.
    """

    accuracy: str
    answers: tuple[str, ...]
    score: str = ""

    @property
    def count(self) -> int:
        """How many answers there are, for chance: at least 2."""
        return max(2, len(self.answers))


def score_of(event: Event) -> float:
    """What an evaluation came to, 0 to 1: the score of its task, or the accuracy."""
    return float(event["score"] if "score" in event else event["accuracy"])


def task_of(run: RunFolder) -> Task:
    """What the run's recipe, and its data once they are read, say of its task."""
    settings = run.settings()
    classes = tuple(run.facts().get("data", {}).get("classes", []))
    if settings.get("kind") == "transfer":
        accuracy, score = TRANSFERS[settings["task"]]
        return Task(accuracy, classes, score)
    if settings.get("kind") == "classify":
        return Task("accuracy", classes)
    angles = settings.get("rotation", {}).get("angles", [0, 90, 180, 270])
    return Task("rotation accuracy", tuple(f"{angle}°" for angle in angles))


def counted(confusion: list[list[int]]) -> dict[str, Any]:
    """What an event tells of the answers: the recall of each, and what was taken for what if they are not too many."""
    return {"per_class": recalls(confusion), "confusion": confusion if len(confusion) <= MOST_COUNTED else []}


def recalls_of(event: Event) -> list[float | None]:
    """The recall, or the score, of each answer that an event tells; None of one that could not be scored."""
    return list(event.get("per_class") or recalls(event.get("confusion", [])))


def recalls(confusion: list[list[int]]) -> list[float]:
    """For each answer, the share of its inputs, 0 to 1, that were given it; rows are the truth."""
    return [row[i] / max(1, sum(row)) for i, row in enumerate(confusion)]
