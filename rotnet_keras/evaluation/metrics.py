"""Metrics of PASCAL VOC and COCO: average precision in classification and detection, IoU in segmentation.

Those of PASCAL VOC follow its development kit of 2007: a "difficult" object is neither a positive nor a mistake, and a
second detection of the same object is a false positive.
"""

from collections.abc import Sequence

import numpy as np

from rotnet_keras.data.boxes import Boxes

# From which IoU on a box counts as a detection of an object: in VOC, and the ten thresholds of COCO.
IOU_THRESHOLD = 0.5
COCO_IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
# Boxes of a class in an image that COCO scores, at most.
COCO_MAX_BOXES = 100


def precision_recall(scores: np.ndarray, correct: np.ndarray, positives: int) -> tuple[np.ndarray, np.ndarray]:
    """Precision and recall after each entry of a ranking.

    Args:
        scores: (n,); the ranking is by descending score.
        correct: (n,) bool, whether the entry is a true positive.
        positives: the number of positives, found or not.

    Returns:
        Precision and recall, (n,) each, 0 to 1.
    """
    hits = np.cumsum(correct[np.argsort(-scores, kind="stable")])
    return hits / np.arange(1, len(hits) + 1), hits / max(1, positives)


def average_precision_11_points(precision: np.ndarray, recall: np.ndarray) -> float:
    """VOC 2007's average precision: at recalls 0, 0.1, ... 1, the mean of the best precision at that recall or more."""
    levels = np.arange(11) / 10
    return float(np.mean([precision[recall >= level - 1e-9].max(initial=0.0) for level in levels]))


def average_precision_area(precision: np.ndarray, recall: np.ndarray) -> float:
    """VOC's average precision from 2010 on: the area under the curve of the best precision at a recall or more."""
    best = np.maximum.accumulate(np.concatenate([precision, [0.0]])[::-1])[::-1][:-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * best))


def classification_average_precision(scores: np.ndarray, truth: np.ndarray) -> tuple[float, float] | None:
    """Average precision of one class in classification.

    Args:
        scores: (N,), one for each image.
        truth: (N,), 1 for an image that shows the class, 0 for one that does not, -1 for a difficult one.

    Returns:
        By eleven points and by area, 0 to 1; None where no image shows the class.
    """
    counted = truth >= 0
    positives = int((truth > 0).sum())
    if not positives:
        return None
    precision, recall = precision_recall(scores[counted], truth[counted] > 0, positives)
    return average_precision_11_points(precision, recall), average_precision_area(precision, recall)


def detection_average_precision(
    detections: Sequence[Boxes], objects: Sequence[Boxes], label: int
) -> tuple[float, float] | None:
    """Average precision of one class in detection, at an IoU of 0.5 or more.

    Args:
        detections: boxes with scores, one `Boxes` for each image.
        objects: the true boxes, in the same order.
        label: number of the class.

    Returns:
        By eleven points and by area, 0 to 1; None where no image has an object of the class that is not difficult.
    """
    scores: list[float] = []
    correct: list[bool] = []
    positives = 0
    for boxes, truth in zip(detections, objects, strict=True):
        assert boxes.scores is not None and truth.difficult is not None
        predicted, actual = boxes.classes == label, truth.classes == label
        difficult = truth.difficult[actual]
        positives += int((~difficult).sum())
        order = np.argsort(-boxes.scores[predicted], kind="stable")
        for score, hit in zip(
            boxes.scores[predicted][order],
            _match_voc(boxes.corners[predicted][order], truth.corners[actual], difficult),
            strict=True,
        ):
            if hit is not None:
                scores.append(float(score))
                correct.append(hit)
    if not positives:
        return None
    precision, recall = precision_recall(np.array(scores), np.array(correct, bool), positives)
    return average_precision_11_points(precision, recall), average_precision_area(precision, recall)


def coco_average_precision(detections: Sequence[Boxes], objects: Sequence[Boxes], label: int) -> float | None:
    """COCO's average precision of one class: the mean over ten IoU thresholds, each at 101 points of recall.

    A box is matched to the object of the highest IoU among those that no box of a higher score has taken. Difficult
    objects, which COCO does not have, count like all others. Objects of all sizes count, and the hundred boxes of a
    class with the highest scores in each image.

    Args:
        detections: boxes with scores, one `Boxes` for each image.
        objects: the true boxes, in the same order.
        label: number of the class.

    Returns:
        0 to 1; None where no image has an object of the class.
    """
    positives = sum(int((truth.classes == label).sum()) for truth in objects)
    if not positives:
        return None
    scores: list[np.ndarray] = []
    correct: list[np.ndarray] = []
    for boxes, truth in zip(detections, objects, strict=True):
        assert boxes.scores is not None
        best = np.flatnonzero(boxes.classes == label)
        best = best[np.argsort(-boxes.scores[best], kind="stable")][:COCO_MAX_BOXES]
        ious = box_iou(boxes.corners[best], truth.corners[truth.classes == label])
        scores.append(boxes.scores[best])
        correct.append(np.stack([_match_coco(ious, threshold) for threshold in COCO_IOU_THRESHOLDS]))
    ranked, hits = np.concatenate(scores), np.concatenate(correct, axis=1)
    return float(np.mean([_average_precision_101_points(*precision_recall(ranked, each, positives)) for each in hits]))


def _match_coco(ious: np.ndarray, threshold: float) -> np.ndarray:
    """Which boxes are matched to an object, highest score first: (n,) bool, from IoUs (n, m)."""
    free = np.ones(ious.shape[1], bool)
    matched = np.zeros(len(ious), bool)
    for number, row in enumerate(ious):
        candidates = np.where(free, row, -1.0)
        # Of equal ones COCO takes the last.
        best = len(candidates) - 1 - int(np.argmax(candidates[::-1])) if len(candidates) else -1
        if best >= 0 and candidates[best] >= min(threshold, 1 - 1e-10):
            matched[number], free[best] = True, False
    return matched


def _average_precision_101_points(precision: np.ndarray, recall: np.ndarray) -> float:
    """COCO's average precision at one threshold, the mean over recalls 0, 0.01, ... 1."""
    best = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    return float(np.mean(best[np.searchsorted(recall, np.linspace(0, 1, 101), side="left")]))


def _match_voc(corners: np.ndarray, objects: np.ndarray, difficult: np.ndarray) -> list[bool | None]:
    """For the boxes of one class in one image, highest score first: whether each is correct; None if it is ignored."""
    taken = np.zeros(len(objects), bool)
    hits: list[bool | None] = []
    for ious in box_iou(corners, objects):
        best = int(np.argmax(ious)) if len(ious) else -1
        if best < 0 or ious[best] < IOU_THRESHOLD:
            hits.append(False)
        elif difficult[best]:
            hits.append(None)
        else:
            hits.append(not taken[best])
            taken[best] = True
    return hits


def box_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union of every pair of boxes.

    Args:
        first: (n, 4), top, left, bottom and right.
        second: (m, 4).

    Returns:
        (n, m), 0 to 1.
    """
    top_left = np.maximum(first[:, None, :2], second[None, :, :2])
    bottom_right = np.minimum(first[:, None, 2:], second[None, :, 2:])
    intersection = np.prod(np.maximum(0.0, bottom_right - top_left), axis=2)
    sizes = [np.prod(np.maximum(0.0, boxes[:, 2:] - boxes[:, :2]), axis=1) for boxes in (first, second)]
    union = sizes[0][:, None] + sizes[1][None] - intersection
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)


def mean_over_classes(values: Sequence[float | None]) -> float:
    """The mean over the classes that have a score; 0 where none has."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else 0.0


def class_ious(confusion: np.ndarray) -> list[float | None]:
    """Intersection over union of each class in segmentation.

    Args:
        confusion: (C, C) counts of pixels, one row for each true class; void pixels are left out.

    Returns:
        0 to 1 for each class; None for a class that is neither present nor predicted.
    """
    intersection = np.diag(confusion)
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - intersection
    return [float(i / u) if u else None for i, u in zip(intersection, union, strict=True)]
