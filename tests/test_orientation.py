"""Picture files turned without a loss."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageOps, PngImagePlugin

from rotnet_keras.images import UnreadableImage
from rotnet_keras.orientation import composed, turn_by_exif, turn_pixels, with_orientation

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 40, 3), np.uint8)
MAKE, GPS, LATITUDE_REF, EXPOSURE = 271, 0x8825, 1, 0x829A


def jpeg(tags=None, order="II"):
    """A JPEG file's bytes, with EXIF data of these tags and a camera's besides."""
    written, exif = BytesIO(), Image.Exif()
    if tags is not None:
        exif.endian = {"II": "<", "MM": ">"}[order]
        exif[MAKE] = "Camera"
        exif.get_ifd(0x8769)[EXPOSURE] = 0.5
        exif.get_ifd(GPS)[LATITUDE_REF] = "N"
        for tag, value in tags.items():
            exif[tag] = value
    options = {} if tags is None else {"exif": exif}
    Image.fromarray(PIXELS).save(written, "JPEG", quality=90, **options)
    return written.getvalue()


def shown(content):
    with Image.open(BytesIO(content)) as image:
        return np.asarray(ImageOps.exif_transpose(image))


def picture_of(content):
    """The bytes from the quantisation tables on."""
    return content[content.index(b"\xff\xdb") :]


@pytest.mark.parametrize("quarters", range(4))
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_tag_turns_what_is_seen_and_nothing_else(orientation, quarters, tmp_path):
    content = jpeg({274: orientation})
    file = tmp_path / "a.jpg"
    file.write_bytes(content)
    turn_by_exif(file, quarters)
    turned = file.read_bytes()
    np.testing.assert_array_equal(shown(turned), np.rot90(shown(content), quarters))
    assert len(turned) == len(content) and sum(a != b for a, b in zip(turned, content)) <= 1
    turn_by_exif(file, -quarters)
    assert file.read_bytes() == content


@pytest.mark.parametrize("order", ["II", "MM"])
def test_a_tag_is_added_to_others(order):
    content = jpeg({}, order)
    turned = with_orientation(content, 6)
    np.testing.assert_array_equal(shown(turned), np.rot90(shown(content), -1))
    assert picture_of(turned) == picture_of(content)
    with Image.open(BytesIO(turned)) as image:
        exif = image.getexif()
        assert exif[MAKE] == "Camera" and exif.get_ifd(GPS)[LATITUDE_REF] == "N"
        assert exif.get_ifd(0x8769)[EXPOSURE] == 0.5 and exif[274] == 6


def test_exif_is_added_where_there_is_none():
    content = jpeg()
    turned = with_orientation(content, 3)
    np.testing.assert_array_equal(shown(turned), np.rot90(shown(content), 2))
    assert picture_of(turned) == picture_of(content) and b"JFIF" in turned


@pytest.mark.parametrize("content", [b"\xff\xd8\xff", b"\xff\xd8\xff\xe1\x00\x08Exif\0\0", b"\xff\xd8 no segments"])
def test_what_is_damaged_is_told(content):
    with pytest.raises(UnreadableImage, match="damaged"):
        with_orientation(content, 3)


def test_orientations_are_composed():
    assert [composed(1, quarters) for quarters in range(5)] == [1, 8, 3, 6, 1]
    assert composed(6, 1) == 1 and composed(2, 2) == 4


@pytest.mark.parametrize("suffix", ["png", "bmp"])
def test_pixels_are_turned_without_a_loss(tmp_path, suffix):
    file, notes, exif = tmp_path / f"a.{suffix}", PngImagePlugin.PngInfo(), Image.Exif()
    notes.add_text("Title", "kept")
    exif[274] = 6
    options = {"pnginfo": notes, "exif": exif} if suffix == "png" else {}
    Image.fromarray(PIXELS).save(file, dpi=(300, 300), **options)
    before = shown(file.read_bytes())
    turn_pixels(file, 1)
    with Image.open(file) as image:
        np.testing.assert_array_equal(np.asarray(image), np.rot90(before))
        assert round(image.info["dpi"][0]) == 300 and not image.getexif().get(274, 1) > 1
        assert suffix != "png" or image.text == {"Title": "kept"}
    turn_pixels(file, 3)
    np.testing.assert_array_equal(shown(file.read_bytes()), before)


def test_each_way_is_for_its_own_formats(tmp_path):
    photo, drawing = tmp_path / "a.jpg", tmp_path / "b.png"
    photo.write_bytes(jpeg())
    Image.fromarray(PIXELS).save(drawing)
    with pytest.raises(UnreadableImage, match="--write exif"):
        turn_pixels(photo, 1)
    with pytest.raises(UnreadableImage, match="--write pixels"):
        turn_by_exif(drawing, 1)


def test_what_cannot_be_written_stays_as_it_was(tmp_path, monkeypatch):
    file = tmp_path / "a.jpg"
    file.write_bytes(jpeg())
    file.chmod(0o640)

    def full(*_):
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space"):
            turn_by_exif(file, 1)
    assert file.read_bytes() == jpeg() and list(tmp_path.iterdir()) == [file]
    turn_by_exif(file, 1)
    assert file.stat().st_mode & 0o777 == 0o640 and list(tmp_path.iterdir()) == [file]
