"""How PASCAL VOC scores: average precision of rankings and of boxes, intersection over union of masks.

As in the development kit of 2007: what is "difficult" counts neither as found nor as missed, and a second box on the
same object is a mistake.
"""

from collections.abc import Sequence

import numpy as np

from rotnet_keras.data.boxes import Boxes

OVERLAP = 0.5
COCO_OVERLAPS = np.linspace(0.5, 0.95, 10)
COCO_BOXES = 100


def curve(scores: np.ndarray, right: np.ndarray, positives: int) -> tuple[np.ndarray, np.ndarray]:
    """Precision and recall after each entry of a ranking.

    Args:
        scores: (n,), the higher the earlier.
        right: (n,) bool.
        positives: how many there are to be found.
    """
    hits = np.cumsum(right[np.argsort(-scores, kind="stable")])
    return hits / np.arange(1, len(hits) + 1), hits / max(1, positives)


def eleven_point(precision: np.ndarray, recall: np.ndarray) -> float:
    """VOC 2007's average precision: the mean, over recalls 0, 0.1, ... 1, of the best precision at no less recall."""
    levels = np.arange(11) / 10
    return float(np.mean([precision[recall >= level - 1e-9].max(initial=0.0) for level in levels]))


def area(precision: np.ndarray, recall: np.ndarray) -> float:
    """VOC's average precision from 2010 on: the area under the curve of the best precision at no less recall."""
    best = np.maximum.accumulate(np.concatenate([precision, [0.0]])[::-1])[::-1][:-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * best))


def of_ranking(scores: np.ndarray, truth: np.ndarray) -> tuple[float, float] | None:
    """Average precision of one class in classification, by eleven points and by area.

    Args:
        scores: (N,) one a picture.
        truth: (N,) 1 where the class is there, 0 where it is not, -1 where it is there but difficult.

    Returns:
        None where no picture has the class.
    """
    counted = truth >= 0
    positives = int((truth > 0).sum())
    if not positives:
        return None
    precision, recall = curve(scores[counted], truth[counted] > 0, positives)
    return eleven_point(precision, recall), area(precision, recall)


def of_boxes(found: Sequence[Boxes], objects: Sequence[Boxes], number: int) -> tuple[float, float] | None:
    """Average precision of one class in detection, by eleven points and by area.

    Args:
        found, objects: by picture, in the same order.
        number: the class.

    Returns:
        None where no picture has such an object that is not difficult.
    """
    scores: list[float] = []
    right: list[bool] = []
    positives = 0
    for boxes, truth in zip(found, objects, strict=True):
        assert boxes.scores is not None and truth.difficult is not None
        mine, theirs = boxes.classes == number, truth.classes == number
        difficult = truth.difficult[theirs]
        positives += int((~difficult).sum())
        order = np.argsort(-boxes.scores[mine], kind="stable")
        for score, hit in zip(
            boxes.scores[mine][order],
            _hits(boxes.corners[mine][order], truth.corners[theirs], difficult),
            strict=True,
        ):
            if hit is not None:
                scores.append(float(score))
                right.append(hit)
    if not positives:
        return None
    precision, recall = curve(np.array(scores), np.array(right, bool), positives)
    return eleven_point(precision, recall), area(precision, recall)


def coco_of_boxes(found: Sequence[Boxes], objects: Sequence[Boxes], number: int) -> float | None:
    """COCO's average precision of one class: the mean over ten overlaps, each by 101 points of recall.

    A box goes to the object that it overlaps most of those that no surer box has got. Difficult ones, which COCO has
    not, count like all others; no area is left out, and the hundred surest boxes of a class in a picture count.

    Returns:
        None where no picture has such an object.
    """
    positives = sum(int((truth.classes == number).sum()) for truth in objects)
    if not positives:
        return None
    scores: list[np.ndarray] = []
    right: list[np.ndarray] = []
    for boxes, truth in zip(found, objects, strict=True):
        assert boxes.scores is not None
        mine = np.flatnonzero(boxes.classes == number)
        mine = mine[np.argsort(-boxes.scores[mine], kind="stable")][:COCO_BOXES]
        overlaps = intersection_over_union(boxes.corners[mine], truth.corners[truth.classes == number])
        scores.append(boxes.scores[mine])
        right.append(np.stack([_matched(overlaps, threshold) for threshold in COCO_OVERLAPS]))
    ranked, hits = np.concatenate(scores), np.concatenate(right, axis=1)
    return float(np.mean([_by_101_points(*curve(ranked, each, positives)) for each in hits]))


def _matched(overlaps: np.ndarray, threshold: float) -> np.ndarray:
    """(n,) bool: which boxes get an object, one after the other, of (n, m) overlaps."""
    free = np.ones(overlaps.shape[1], bool)
    hits = np.zeros(len(overlaps), bool)
    for which, row in enumerate(overlaps):
        fitting = np.where(free, row, -1.0)
        # Of equal ones COCO takes the last.
        best = len(fitting) - 1 - int(np.argmax(fitting[::-1])) if len(fitting) else -1
        if best >= 0 and fitting[best] >= min(threshold, 1 - 1e-10):
            hits[which], free[best] = True, False
    return hits


def _by_101_points(precision: np.ndarray, recall: np.ndarray) -> float:
    best = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    return float(np.mean(best[np.searchsorted(recall, np.linspace(0, 1, 101), side="left")]))


def _hits(corners: np.ndarray, objects: np.ndarray, difficult: np.ndarray) -> list[bool | None]:
    """For boxes of one class in one picture, best first: whether each is right; None if it does not count."""
    taken = np.zeros(len(objects), bool)
    hits: list[bool | None] = []
    for overlaps in intersection_over_union(corners, objects):
        which = int(np.argmax(overlaps)) if len(overlaps) else -1
        if which < 0 or overlaps[which] < OVERLAP:
            hits.append(False)
        elif difficult[which]:
            hits.append(None)
        else:
            hits.append(not taken[which])
            taken[which] = True
    return hits


def intersection_over_union(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Of each box (n, 4) with each other one (m, 4): (n, m)."""
    top_left = np.maximum(first[:, None, :2], second[None, :, :2])
    bottom_right = np.minimum(first[:, None, 2:], second[None, :, 2:])
    common = np.prod(np.maximum(0.0, bottom_right - top_left), axis=2)
    sizes = [np.prod(np.maximum(0.0, boxes[:, 2:] - boxes[:, :2]), axis=1) for boxes in (first, second)]
    union = sizes[0][:, None] + sizes[1][None] - common
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)


def mean_of(values: Sequence[float | None]) -> float:
    """The mean over the classes that can be scored."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else 0.0


def class_overlaps(confusion: np.ndarray) -> list[float | None]:
    """Intersection over union of each class in segmentation.

    Args:
        confusion: (C, C) counts of pixels, rows the truth, what is void left out.

    Returns:
        None for a class that is neither there nor predicted anywhere.
    """
    common = np.diag(confusion)
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - common
    return [float(c / u) if u else None for c, u in zip(common, union, strict=True)]
