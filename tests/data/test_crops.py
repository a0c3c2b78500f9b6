import numpy as np
import pytest
from PIL import Image

from rotnet_keras.config.sections import Augment, Data
from rotnet_keras.data.batches import center_crop, load_augmented
from rotnet_keras.data.crops import center_crops, random_crops, random_resized_crops
from rotnet_keras.data.datasets import load
from rotnet_keras.data.stores import Split

FRAMES = np.array([[0, 0, 10, 15], [2, 4, 10, 10], [0, 0, 40, 10]], float).repeat(500, axis=0)


def inside(boxes, frames):
    ends = boxes[:, :2] + boxes[:, 2:]
    return bool((boxes[:, :2] >= frames[:, :2] - 1e-9).all() and (ends <= frames[:, :2] + frames[:, 2:] + 1e-9).all())


def test_crops_of_one_size_lie_anywhere_in_their_frames():
    boxes = random_crops(FRAMES, 8, np.random.default_rng(0))
    assert inside(boxes, FRAMES) and (boxes[:, 2:] == 8).all()
    assert set(boxes[:500, 0]) == {0, 1, 2} and set(boxes[:500, 1]) == set(range(8))
    assert set(boxes[500:1000, 1]) == {4, 5, 6}


def test_crops_of_random_size_have_the_shares_and_shapes_asked_for():
    boxes = random_resized_crops(FRAMES, [0.1, 0.5], 4 / 3, np.random.default_rng(0))
    assert inside(boxes, FRAMES)
    shares = boxes[:, 2:].prod(axis=1) / FRAMES[:, 2:].prod(axis=1)
    ratios = boxes[:, 3] / boxes[:, 2]
    assert 0.1 <= shares.min() < 0.11 and 0.47 < shares[:1000].max() <= 0.5
    assert 0.75 <= ratios.min() < 0.76 and 1.32 < ratios.max() <= 4 / 3
    assert np.log(ratios[:1000]).mean() == pytest.approx(0, abs=0.02)
    again = random_resized_crops(FRAMES, [0.1, 0.5], 4 / 3, np.random.default_rng(0))
    np.testing.assert_array_equal(boxes, again)


def test_where_no_draw_fits_the_central_square_is_taken():
    """A square of half of a frame of 1 to 20 is three times as high as it."""
    frames = np.array([[0, 0, 1, 20]], float)
    boxes = random_resized_crops(frames, [0.5, 0.5], 1.0001, np.random.default_rng(0))
    np.testing.assert_array_equal(boxes, [[0, 9.5, 1, 1]])
    np.testing.assert_array_equal(center_crops(frames, 0.5), [[0.25, 9.75, 0.5, 0.5]])


@pytest.fixture
def wide(tmp_path):
    """Wide images whose left third is red, middle green, right blue; the fast decoder cannot read one of the files."""
    pixels = np.zeros((24, 72, 3), np.uint8)
    for third in range(3):
        pixels[:, 24 * third : 24 * third + 24, third] = 250
    for name in ("a.jpg", "b.jpg", "c.png"):
        Image.fromarray(pixels).save(tmp_path / name, **({"quality": 100, "subsampling": 0} if "jpg" in name else {}))
    return tmp_path


@pytest.mark.parametrize("area", [None, [0.05, 0.1]])
@pytest.mark.parametrize("whole", [False, True])
def test_crops_lie_in_the_central_square_or_in_the_whole_image(wide, area, whole):
    spec = Data(name=str(wide), size=16, validation=0, whole=whole, cache="none")
    split = load(spec).train
    crops = load_augmented(split, np.arange(300) % 3, Augment(crop=8, area=area), np.random.default_rng(0))
    assert crops.shape == (300, 8, 8, 3) and crops.dtype == np.uint8
    seen = {int(pixel.argmax()) for crop in crops for pixel in (crop[4, 3], crop[4, 4])}
    assert seen == ({0, 1, 2} if whole else {1})
    middle = center_crop(split.images(np.arange(3)), Augment(crop=8))
    assert (middle.argmax(-1) == 1).all()


def test_crops_of_random_size_of_arrays_are_resized():
    """Of a ramp from left to right a tenth is as steep as a tenth of it is wide."""
    ramp = np.tile(np.linspace(0, 255, 64).astype(np.uint8)[None, :, None], (64, 1, 3))
    split = Split(ramp[None], np.arange(1), None)
    rng = np.random.default_rng(0)
    crops = load_augmented(split, np.zeros(50, int), Augment(crop=16, area=[0.1, 0.1]), rng).astype(int)
    assert crops.shape == (50, 16, 16, 3)
    spans = crops[:, 8, -1, 0] - crops[:, 8, 0, 0]
    assert (spans > 0.1**0.5 * 255 * 0.7).all() and (spans < 0.1**0.5 * 255 * 1.25).all()
