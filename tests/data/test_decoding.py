"""One decoder for training and for everything else: its pixels are those of Pillow, upright."""

import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import IFDRational, ImageFileDirectory_v2
from support.photos import photo, saved

from rotnet_keras.config.sections import Augment, Data
from rotnet_keras.data.batches import center_crop, load_augmented
from rotnet_keras.data.datasets import load
from rotnet_keras.data.decoding import box_in_pixels, read_center, read_header, read_image, read_whole
from rotnet_keras.data.image_files import TRANSPOSES, stored_corners, transpose, upright_corners, upright_size
from rotnet_keras.inference.loading import ImageLoader

ORIENTATION = 0x0112


def by_pillow(content, size, box=None, side=None):
    """What Pillow's filter makes of the whole image in one step."""
    with Image.open(content) as image:
        top, left, height, width = box_in_pixels(*image.size, size, box)
        side = side or size
        bounds = (left, top, min(left + width, image.width), min(top + height, image.height))
        return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR, box=bounds))


def difference(one, other):
    return np.abs(one.astype(int) - other.astype(int)).mean()


BOXES = [(256, None, None), (256, (16.0, 40.0, 224.0, 224.0), 224), (256, (5.0, 9.0, 120.0, 160.0), 224)]
SMALL = [(32, None, None), (72, None, None), (90, (3.0, 8.0, 60.0, 80.0), 48)]


@pytest.mark.parametrize(("size", "box", "side"), BOXES + SMALL)
def test_a_jpeg_is_resampled_as_pillow_does_and_as_a_png_of_the_same_pixels(size, box, side):
    jpeg = saved(photo())
    png = saved(Image.open(jpeg), "PNG")
    pixels = read_image(jpeg, size, 3, box, side)
    assert difference(pixels, by_pillow(jpeg, size, box, side)) < 1
    assert difference(pixels, read_image(png, size, 3, box, side)) < 1.2


@pytest.mark.parametrize(("size", "box", "side"), [*BOXES, (188, None, None), (60, (0.0, 0.0, 20.0, 20.0), 70)])
def test_a_jpeg_is_decoded_in_full_unless_twice_the_pixels_are_left(size, box, side):
    """A half of 375 rows is 187.5, so that 94 are the first size that needs all."""
    jpeg = saved(photo())
    np.testing.assert_array_equal(read_image(jpeg, size, 3, box, side), by_pillow(jpeg, size, box, side))


def test_a_large_jpeg_is_decoded_at_a_part_of_its_size(monkeypatch):
    seen = []
    load_pixels = Image.Image.load
    jpeg = saved(photo(1001, 803))
    monkeypatch.setattr(Image.Image, "load", lambda self: seen.append(self.size) or load_pixels(self))
    read_image(jpeg, 50, 3)
    read_image(jpeg, 512, 3, (0.0, 0.0, 512.0, 512.0), 100)
    assert (126, 101) in seen and (251, 201) in seen and (1001, 803) not in seen


@pytest.mark.parametrize(("width", "height"), [(90, 60), (60, 90)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_the_central_square_is_what_is_read(width, height, kind):
    """White in the middle and black beside it, and in the middle of that a grey square of a third of the side."""
    pixels = np.zeros((height, width), np.uint8)
    top, left = (height - 60) // 2, (width - 60) // 2
    pixels[top : top + 60, left : left + 60] = 255
    pixels[top + 20 : top + 40, left + 20 : left + 40] = 128
    content = saved(Image.fromarray(pixels), kind, **({"quality": 100} if kind == "JPEG" else {}))
    expected = np.full((60, 60, 1), 255)
    expected[20:40, 20:40] = 128
    np.testing.assert_allclose(read_image(content, 60, 1), expected, atol=3)
    np.testing.assert_allclose(read_center(content, 60, 1, 20), np.full((20, 20, 1), 128), atol=3)


def test_an_image_whose_parts_are_no_whole_pixels_is_not_shifted():
    """1001 columns are 126 of eight, of which the last shows one column: the ramp goes to that column, not beyond."""
    ramp = np.tile(np.linspace(0, 250, 1001).astype(np.uint8), (1001, 1))
    jpeg = saved(Image.fromarray(ramp), quality=100)
    pixels = read_image(jpeg, 50, 1)[25, :, 0].astype(float)
    np.testing.assert_allclose(pixels[1:-1], (np.arange(50)[1:-1] + 0.5) * 5, atol=1)


def test_training_and_trained_networks_see_the_same_pixels(tmp_path):
    for n, kind in enumerate(("jpg", "png", "jpg")):
        photo(300 + n, 200).save(tmp_path / f"{n}.{kind}")
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    photo(300, 200).save(tmp_path / "3.jpg", exif=exif)
    stores = {
        kept: load(Data(name=str(tmp_path), size=64, validation=0, cache=kept)).train for kept in ("memory", "none")
    }
    files = sorted(tmp_path.iterdir())
    for split in stores.values():
        for position, file in enumerate(files):
            image = split.images([position])
            np.testing.assert_array_equal(image[0], ImageLoader(64, 64, 3).load(file))
            smaller = center_crop(image, Augment(crop=47))[0].astype(int)
            assert np.abs(smaller - ImageLoader(64, 47, 3).load(file)).max() <= 1
    augment = Augment(crop=48)
    crops = load_augmented(stores["none"], np.arange(4), augment, np.random.default_rng(0))
    kept = load_augmented(stores["memory"], np.arange(4), augment, np.random.default_rng(0))
    assert difference(crops, kept) < 0.5


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_every_orientation_is_applied_in_every_format(kind, orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    options = {"quality": 95} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}
    image = photo(90, 60)
    stored = saved(image, kind, exif=exif, **options)
    upright = saved(transpose(Image.open(saved(image, kind, **options)).convert("RGB"), orientation), "PNG")
    header = read_header(stored)
    assert (header.width, header.height) == ((60, 90) if orientation > 4 else (90, 60))
    assert header.orientation == orientation and header.exif_rotated == (orientation > 1)
    np.testing.assert_array_equal(read_whole(stored, 3), read_whole(upright, 3))
    for box in (None, (4.0, 1.0, 20.0, 28.0)):
        assert np.abs(read_image(stored, 40, 3, box, 24).astype(int) - read_image(upright, 40, 3, box, 24)).max() <= 1


def exif_of(value):
    """EXIF data with one tag, the orientation, of whatever type the value has."""
    directory = ImageFileDirectory_v2()
    directory.tagtype[ORIENTATION] = {int: 3, str: 2, bytes: 7, float: 12, IFDRational: 5}[type(value)]
    directory[ORIENTATION] = value
    return b"Exif\0\0II*\0\x08\0\0\0" + directory.tobytes(8)


@pytest.mark.parametrize("value", [9, 0, 65535, IFDRational(6, 1), IFDRational(1, 0), "6", "sideways", b"\x06", 6.5])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_an_orientation_that_is_none_leaves_the_image_upright(kind, value):
    content = saved(photo(90, 60), kind, exif=exif_of(value))
    plain = saved(photo(90, 60), kind)
    header = read_header(content)
    assert (header.width, header.height, header.exif_rotated) == (90, 60, False)
    np.testing.assert_array_equal(read_image(content, 40, 3), read_image(plain, 40, 3))
    np.testing.assert_array_equal(read_whole(content, 3), read_whole(plain, 3))


@pytest.mark.parametrize("orientation", [1, *TRANSPOSES])
def test_boxes_are_transposed_as_pixels_are(orientation):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7), np.uint8)
    upright = np.asarray(transpose(Image.fromarray(pixels), orientation))
    ((top, left, bottom, right),) = upright_corners([(1, 2, 4, 6)], (7, 5), orientation).astype(int)
    part = np.asarray(transpose(Image.fromarray(pixels[1:4, 2:6]), orientation))
    np.testing.assert_array_equal(upright[top:bottom, left:right], part)
    back = stored_corners([(top, left, bottom, right)], upright_size((7, 5), orientation), orientation)
    np.testing.assert_array_equal(back, [(1, 2, 4, 6)])
