"""The metrics of PASCAL VOC against cases computed by hand, and those of COCO against pycocotools."""

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rotnet_keras.data.boxes import Boxes
from rotnet_keras.evaluation.metrics import (
    box_iou,
    class_ious,
    classification_average_precision,
    coco_average_precision,
    detection_average_precision,
)

CAT = 0


def objects(*boxes, difficult=()):
    """The true cats of an image; those whose numbers are in `difficult` are difficult."""
    corners = np.array(boxes, float).reshape(-1, 4)
    return Boxes(corners, np.full(len(corners), CAT), np.isin(np.arange(len(corners)), difficult))


def found(*boxes):
    """Detections of cats, each as (score, corners)."""
    corners = np.array([box for _, box in boxes], float).reshape(-1, 4)
    return Boxes(corners, np.full(len(corners), CAT), scores=np.array([score for score, _ in boxes]))


A, B, FAR = (0, 0, 10, 10), (20, 20, 30, 30), (50, 50, 60, 60)
# Half of A and nothing else: exactly at the threshold; and a line less.
HALF_OF_A, LESS_OF_A = (0, 0, 5, 10), (0, 0, 4.9, 10)


@pytest.mark.parametrize(
    ("detections", "truth", "eleven", "under"),
    [
        pytest.param([found((0.9, A))], [objects(A)], 1, 1, id="found"),
        pytest.param([found()], [objects(A)], 0, 0, id="nothing found"),
        pytest.param([found((0.9, HALF_OF_A))], [objects(A)], 1, 1, id="half is enough"),
        pytest.param([found((0.9, LESS_OF_A))], [objects(A)], 0, 0, id="less than half is not"),
        # The second box on A is a mistake, but one after all was found.
        pytest.param([found((0.9, A), (0.8, A))], [objects(A)], 1, 1, id="a duplicate at the end"),
        # Right, wrong, right: precision 1, 1/2, 2/3 at recalls 1/2, 1/2, 1. Recalls 0 to 0.5 see 1, 0.6 to 1 see 2/3.
        pytest.param(
            [found((0.9, A), (0.8, A), (0.7, B))],
            [objects(A, B)],
            (6 + 5 * 2 / 3) / 11,
            5 / 6,
            id="a duplicate between",
        ),
        # The box on the difficult object counts neither way, and there is one object to find.
        pytest.param([found((0.9, B), (0.8, A))], [objects(A, B, difficult=[1])], 1, 1, id="a difficult one found"),
        pytest.param([found((0.8, A))], [objects(A, B, difficult=[1])], 1, 1, id="a difficult one missed"),
        # Wrong, right: precision 0, 1/2 at recalls 0, 1.
        pytest.param([found((0.9, FAR), (0.8, A))], [objects(A)], 0.5, 0.5, id="a mistake first"),
        # In another image than the object.
        pytest.param([found(), found((0.9, A))], [objects(A), objects()], 0, 0, id="the wrong image"),
        # One of two: precision 1 up to recall 1/2, so at 0, 0.1, ... 0.5.
        pytest.param([found((0.9, A)), found()], [objects(A), objects(B)], 6 / 11, 0.5, id="one of two"),
    ],
)
def test_detections_are_scored_as_in_the_development_kit(detections, truth, eleven, under):
    assert detection_average_precision(detections, truth, CAT) == pytest.approx((eleven, under))


def test_a_class_without_an_object_that_counts_has_no_score():
    assert detection_average_precision([found((0.9, A))], [objects(A, difficult=[0])], CAT) is None
    assert detection_average_precision([found((0.9, A))], [objects(A)], CAT + 1) is None
    assert classification_average_precision(np.array([0.5, 0.4]), np.array([0, -1])) is None


def test_classification_leaves_out_difficult_images():
    # Ranked: there, difficult, not there, there. Counted: right, wrong, right.
    scores, truth = np.array([0.2, 0.9, 0.5, 0.7]), np.array([1, 1, 0, -1])
    assert classification_average_precision(scores, truth) == pytest.approx(((6 + 5 * 2 / 3) / 11, 5 / 6))


def test_intersection_over_union_of_boxes():
    overlaps = box_iou(np.array([A, B], float), np.array([(5, 5, 15, 15), (0, 0, 0, 0)], float))
    assert overlaps == pytest.approx(np.array([[25 / 175, 0], [0, 0]]))


def test_intersection_over_union_of_masks_by_hand():
    # Rows are the truth: 3 of 4 pixels of class 0 right, one of them taken for 1; class 2 nowhere.
    confusion = np.array([[3, 1, 0], [2, 4, 0], [0, 0, 0]])
    assert class_ious(confusion) == [pytest.approx(3 / 6), pytest.approx(4 / 7), None]
    assert class_ious(np.array([[0, 0], [0, 5]])) == [None, 1.0]


def crowded(seed):
    """Images with detections on, near and far from objects, many with equal scores; some images have no objects."""
    rng = np.random.default_rng(seed)
    detections, truth = [], []
    for _ in range(12):
        corner, size = rng.integers(0, 60, (rng.integers(0, 5), 2)), rng.integers(5, 40, (1, 2))
        mine = np.concatenate([corner, corner + size], axis=1)
        near = mine.repeat(3, axis=0) + rng.integers(-4, 5, (3 * len(mine), 4))
        far = np.concatenate([at := rng.integers(0, 60, (3, 2)), at + rng.integers(3, 30, (3, 2))], axis=1)
        boxes = np.concatenate([near[near[:, 2] > near[:, 0]], far])
        boxes = boxes[(boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])]
        truth.append(Boxes(mine.astype(float), rng.integers(0, 3, len(mine)), rng.random(len(mine)) < 0.2))
        scores = rng.integers(1, 20, len(boxes)) / 20
        detections.append(Boxes(boxes.astype(float), rng.integers(0, 3, len(boxes)), scores=scores))
    return detections, truth


def pycocotools_average_precision(detections, truth, number):
    def wide(corners):
        return [corners[1], corners[0], corners[3] - corners[1], corners[2] - corners[0]]

    reference = COCO()
    mine = [
        {"image_id": i, "category_id": number, "bbox": wide(box), "area": wide(box)[2] * wide(box)[3], "iscrowd": 0}
        for i, objects in enumerate(truth)
        for box, k in zip(objects.corners.tolist(), objects.classes, strict=True)
        if k == number
    ]
    reference.dataset = {
        "images": [{"id": i} for i in range(len(truth))],
        "categories": [{"id": number}],
        "annotations": [item | {"id": i} for i, item in enumerate(mine, 1)],
    }
    reference.createIndex()
    predicted = [
        {"image_id": i, "category_id": number, "bbox": wide(box), "score": score}
        for i, boxes in enumerate(detections)
        for box, k, score in zip(boxes.corners.tolist(), boxes.classes, boxes.scores.tolist(), strict=True)
        if k == number
    ]
    evaluation = COCOeval(reference, reference.loadRes(predicted), "bbox")
    evaluation.params.imgIds = list(range(len(truth)))
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation.stats[0]


@pytest.mark.parametrize("seed", range(4))
def test_average_precision_of_coco_equals_pycocotools(seed):
    detections, truth = crowded(seed)
    for number in range(3):
        expected = pycocotools_average_precision(detections, truth, number)
        assert 0 < expected < 1
        assert coco_average_precision(detections, truth, number) == pytest.approx(expected, abs=1e-9)


def test_a_class_without_objects_has_no_average_precision_of_coco():
    assert coco_average_precision([found((0.9, A))], [objects()], CAT) is None
    assert coco_average_precision([found()], [objects(A)], CAT) == 0
