"""Letterboxing of images, their masks and their boxes."""

import numpy as np
import pytest

from rotnet_keras.data import letterbox
from rotnet_keras.data.letterbox import Placement

VOID = 255


def gradient(width, height):
    """An image whose red is the column and whose green is the row."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = np.arange(width), np.arange(height)[:, None]
    return pixels


def test_an_image_fills_the_letterbox_from_its_corner_and_the_rest_is_void():
    where = letterbox.fitted_placement((6, 4), 6)
    assert (where.scale, where.size) == (1.0, (6, 4))
    canvas = letterbox.letterbox_image(gradient(6, 4), where, 6)
    assert (canvas[:4] == gradient(6, 4)).all() and (canvas[4:] == letterbox.FILL).all()
    mask = letterbox.letterbox_mask(np.ones((4, 6), np.uint8), where, 6, VOID)
    assert (mask[:4] == 1).all() and (mask[4:] == VOID).all()
    assert letterbox.fitted_placement((6, 4), 12).size == (12, 8)


@pytest.mark.parametrize(("size", "expected"), [((500, 375), (800, 600)), ((375, 500), (600, 800))])
def test_an_images_short_side_can_have_a_length(size, expected):
    assert letterbox.fitted_placement(size, 1024, 600).size == expected
    # A wide image whose long side would not fit is as large as it fits.
    assert letterbox.fitted_placement((1000, 200), 1024, 600).size == (1024, 205)


def test_a_large_image_is_made_to_fit_and_its_mask_comes_back_in_its_own_size():
    where = letterbox.fitted_placement((32, 16), 8)
    assert where.size == (8, 4)
    mask = np.zeros((16, 32), np.uint8)
    mask[:, 16:] = 3
    laid = letterbox.letterbox_mask(mask, where, 8, VOID)
    assert laid[:4].tolist() == [[0, 0, 0, 0, 3, 3, 3, 3]] * 4
    assert (letterbox.unletterbox_mask(laid, where) == mask).all()


@pytest.mark.parametrize("flip", [False, True])
def test_image_and_mask_are_cropped_alike(flip):
    pixels = gradient(20, 12)
    where = Placement(20, 12, 1.0, top=-3, left=-5, flip=flip)
    canvas = letterbox.letterbox_image(pixels, where, 8)
    mask = letterbox.letterbox_mask(pixels[..., 0], where, 8, VOID)
    assert (canvas[..., 0] == mask).all()
    columns = np.arange(20)[::-1] if flip else np.arange(20)
    assert canvas[0, :, 0].tolist() == columns[5:13].tolist()
    assert canvas[:, 0, 1].tolist() == list(range(3, 11))


def test_random_placements_stay_within_their_bounds_and_are_a_function_of_the_seed():
    rng = np.random.default_rng(0)
    drawn = [letterbox.random_placement((20, 12), 8, [0.5, 2.0], True, rng) for _ in range(200)]
    rng = np.random.default_rng(0)
    assert drawn == [letterbox.random_placement((20, 12), 8, [0.5, 2.0], True, rng) for _ in range(200)]
    filling = [w.scale * 20 / 8 for w in drawn]
    assert 0.5 <= min(filling) < 0.6 and 1.8 < max(filling) <= 2.0
    assert {w.flip for w in drawn} == {True, False}
    for where in drawn:
        width, height = where.size
        assert -max(0, height - 8) <= where.top <= 0 and -max(0, width - 8) <= where.left <= 0
        mask = letterbox.letterbox_mask(np.zeros((12, 20), np.uint8), where, 8, VOID)
        assert (mask == 0).sum() == min(8, width) * min(8, height)


@pytest.mark.parametrize("flip", [False, True])
def test_boxes_lie_where_their_pixels_do(flip):
    pixels = np.zeros((12, 20, 3), np.uint8)
    pixels[2:6, 4:14] = 255
    where = Placement(20, 12, 2.0, top=-2, left=-12, flip=flip)
    seen = letterbox.letterbox_image(pixels, where, 16)[..., 0] > 127
    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    (box,), (share,) = letterbox.letterbox_boxes(np.array([[2.0, 4.0, 6.0, 14.0]]), where, 16)
    assert box.tolist() == [rows[0], columns[0], rows[-1] + 1, columns[-1] + 1]
    assert share == pytest.approx(seen.sum() / (2 * 4 * 2 * 10))
    (gone,) = letterbox.letterbox_boxes(np.array([[11.0, 0.0, 12.0, 1.0]]), where, 16)[1]
    assert gone == 0


def test_boxes_come_back_in_pixels_of_the_image():
    boxes = np.array([[2.0, 4.0, 6.0, 14.0]])
    where = letterbox.fitted_placement((20, 12), 7)
    assert letterbox.unletterbox_boxes(letterbox.letterbox_boxes(boxes, where, 7)[0], where) == pytest.approx(boxes)
    assert letterbox.unletterbox_boxes(np.array([[-1.0, 3.0, 7.0, 9.0]]), where)[0, [0, 2, 3]].tolist() == [0, 12, 20]
