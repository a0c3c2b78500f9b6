"""Lossless rotation of image files."""

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageOps, PngImagePlugin

from rotnet_keras.data.decoding import UnreadableImage
from rotnet_keras.inference.lossless_rotation import (
    compose_orientation,
    rotate_by_exif,
    rotate_pixels,
    with_orientation,
)

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 40, 3), np.uint8)
MAKE, GPS, LATITUDE_REF, EXPOSURE = 271, 0x8825, 1, 0x829A


def jpeg(tags=None, order="II", mode="RGB", **options):
    """A JPEG file's bytes, with EXIF data of these tags and a camera's besides."""
    written, exif = BytesIO(), Image.Exif()
    if tags is not None:
        exif.endian = {"II": "<", "MM": ">"}[order]
        exif[MAKE] = "Camera"
        exif.get_ifd(0x8769)[EXPOSURE] = 0.5
        exif.get_ifd(GPS)[LATITUDE_REF] = "N"
        for tag, value in tags.items():
            exif[tag] = value
        options["exif"] = exif
    Image.fromarray(PIXELS).convert(mode).save(written, "JPEG", quality=90, **options)
    return written.getvalue()


def shown(content):
    with Image.open(BytesIO(content)) as image:
        return np.asarray(ImageOps.exif_transpose(image))


def compressed_image(content):
    """The bytes from the quantisation tables on."""
    return content[content.index(b"\xff\xdb") :]


@pytest.mark.parametrize("order", ["II", "MM"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_exif_orientation_rotates_the_displayed_image_and_changes_nothing_else(orientation, order, tmp_path):
    content = jpeg({274: orientation}, order)
    file = tmp_path / "a.jpg"
    for quarters in range(4):
        file.write_bytes(content)
        rotate_by_exif(file, quarters)
        rotated = file.read_bytes()
        np.testing.assert_array_equal(shown(rotated), np.rot90(shown(content), quarters))
        assert len(rotated) == len(content) and sum(a != b for a, b in zip(rotated, content)) <= 1
        rotate_by_exif(file, -quarters)
        assert file.read_bytes() == content


@pytest.mark.parametrize("orientation", [0, 9, 700])
def test_an_orientation_that_is_none_is_replaced_as_if_it_were_upright(orientation, tmp_path):
    photo, drawing = tmp_path / "a.jpg", tmp_path / "a.png"
    photo.write_bytes(jpeg({274: orientation}))
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(PIXELS).save(drawing, exif=exif)
    before = shown(photo.read_bytes())
    rotate_by_exif(photo, 1)
    rotate_pixels(drawing, 1)
    np.testing.assert_array_equal(shown(photo.read_bytes()), np.rot90(before))
    np.testing.assert_array_equal(shown(drawing.read_bytes()), np.rot90(PIXELS))
    with Image.open(photo) as image:
        assert image.getexif()[274] == 8


@pytest.mark.parametrize("tags", [None, {}, {274: 7}])
@pytest.mark.parametrize("options", [
    {"progressive": True}, {"mode": "L"}, {"mode": "CMYK"},
    {"icc_profile": b"a profile", "comment": b"a comment", "xmp": b"<x:xmpmeta/>", "dpi": (300, 300)},
])  # fmt: skip
def test_jpeg_files_of_every_kind_come_back(options, tags, tmp_path):
    content = jpeg(tags, **options)
    file = tmp_path / "a.jpg"
    file.write_bytes(content)
    for quarters in (1, 2, 3, 2):
        before = shown(file.read_bytes())
        rotate_by_exif(file, quarters)
        np.testing.assert_array_equal(shown(file.read_bytes()), np.rot90(before, quarters))
    rotated = file.read_bytes()
    np.testing.assert_array_equal(shown(rotated), shown(content))
    assert compressed_image(rotated) == compressed_image(content)
    with Image.open(BytesIO(rotated)) as after, Image.open(BytesIO(content)) as before:
        for key in ("icc_profile", "comment", "xmp", "jfif_density", "progressive"):
            assert after.info.get(key) == before.info.get(key)


def test_several_images_in_one_file_keep_their_offsets(tmp_path):
    """Phones write such files; their index counts bytes, so that nothing may become longer."""
    file, others, exif = tmp_path / "a.jpg", [Image.fromarray(255 - PIXELS)], Image.Exif()
    exif[274] = 6
    Image.fromarray(PIXELS).save(file, "MPO", save_all=True, append_images=others, exif=exif)
    before = file.read_bytes()
    rotate_by_exif(file, 1)
    rotated = file.read_bytes()
    np.testing.assert_array_equal(shown(rotated), np.rot90(shown(before)))
    with Image.open(file) as image:
        image.seek(1)
        assert len(rotated) == len(before) and image.n_frames == 2 and image.size == (40, 24)
    Image.fromarray(PIXELS).save(file, "MPO", save_all=True, append_images=others)
    plain = file.read_bytes()
    with pytest.raises(UnreadableImage, match="several images"):
        rotate_by_exif(file, 1)
    assert file.read_bytes() == plain


@pytest.mark.parametrize("order", ["II", "MM"])
def test_an_orientation_is_added_to_other_exif_tags(order):
    content = jpeg({}, order)
    rotated = with_orientation(content, 6)
    np.testing.assert_array_equal(shown(rotated), np.rot90(shown(content), -1))
    assert compressed_image(rotated) == compressed_image(content)
    with Image.open(BytesIO(rotated)) as image:
        exif = image.getexif()
        assert exif[MAKE] == "Camera" and exif.get_ifd(GPS)[LATITUDE_REF] == "N"
        assert exif.get_ifd(0x8769)[EXPOSURE] == 0.5 and exif[274] == 6


def test_exif_is_added_where_there_is_none():
    content = jpeg()
    rotated = with_orientation(content, 3)
    np.testing.assert_array_equal(shown(rotated), np.rot90(shown(content), 2))
    assert compressed_image(rotated) == compressed_image(content) and b"JFIF" in rotated


@pytest.mark.parametrize("content", [b"\xff\xd8\xff", b"\xff\xd8\xff\xe1\x00\x08Exif\0\0", b"\xff\xd8 no segments"])
def test_damaged_files_are_refused(content):
    with pytest.raises(UnreadableImage, match="damaged"):
        with_orientation(content, 3)


def test_orientations_are_composed():
    assert [compose_orientation(1, quarters) for quarters in range(5)] == [1, 8, 3, 6, 1]
    assert compose_orientation(6, 1) == 1 and compose_orientation(2, 2) == 4


def drawing(mode):
    """An image in one of the modes of PNG files."""
    alpha = Image.fromarray(PIXELS[..., 1])
    if mode == "I;16":
        return Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257 + PIXELS[..., 1])
    if mode == "RGBA":
        return Image.merge("RGBA", [*Image.fromarray(PIXELS).split(), alpha])
    if mode == "LA":
        return Image.merge("LA", [Image.fromarray(PIXELS[..., 0]), alpha])
    image = Image.fromarray(PIXELS)
    return image.quantize(13) if mode == "P" else image.convert(mode)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "P transparent", "L", "LA", "1", "I;16"])
@pytest.mark.parametrize("orientation", [None, *range(1, 9)])
def test_drawings_of_every_kind_come_back(mode, orientation, tmp_path):
    file, notes, exif = tmp_path / "a.png", PngImagePlugin.PngInfo(), Image.Exif()
    notes.add_text("Title", "kept")
    notes.add_itxt("Author", "jemand", "de", "Verfasser")
    notes.add(b"gAMA", (45_455).to_bytes(4))
    notes.add(b"tIME", bytes([7, 231, 1, 2, 3, 4, 5]))
    notes.add(b"prVt", b"of a program")
    exif[MAKE] = "Camera"
    if orientation:
        exif[274] = orientation
    options = {"transparency": bytes([0, 99, 255])} if "transparent" in mode else {}
    image = drawing(mode.split()[0])
    image.save(file, pnginfo=notes, exif=exif, dpi=(300, 150), icc_profile=b"a profile", **options)
    first = shown(file.read_bytes())
    for quarters in (1, 2, 3, 2):
        before = shown(file.read_bytes())
        rotate_pixels(file, quarters)
        np.testing.assert_array_equal(shown(file.read_bytes()), np.rot90(before, quarters))
    np.testing.assert_array_equal(shown(file.read_bytes()), first)
    content = file.read_bytes()
    assert all(name in content for name in (b"gAMA", b"tIME", b"prVt"))
    with Image.open(BytesIO(content)) as after:
        assert after.mode == image.mode and after.text == {"Title": "kept", "Author": "jemand"}
        assert after.text["Author"].lang == "de" and after.info["icc_profile"] == b"a profile"
        assert after.info.get("transparency") == options.get("transparency")
        assert after.getexif()[MAKE] == "Camera" and after.getexif().get(274, 1) == 1
        sideways = (orientation or 1) > 4
        assert [round(value) for value in after.info["dpi"]] == ([150, 300] if sideways else [300, 150])


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1"])
def test_pixels_of_bmp_files_are_rotated(mode, tmp_path):
    file = tmp_path / "a.bmp"
    drawing(mode).save(file, dpi=(300, 300))
    before = shown(file.read_bytes())
    rotate_pixels(file, 1)
    with Image.open(file) as image:
        np.testing.assert_array_equal(np.asarray(image), np.rot90(before))
        assert round(image.info["dpi"][0]) == 300 and image.mode == mode
    rotate_pixels(file, 3)
    np.testing.assert_array_equal(shown(file.read_bytes()), before)


def test_files_that_would_lose_something_are_left_alone(tmp_path):
    deep, moving = tmp_path / "deep.png", tmp_path / "moving.png"
    rows = (PIXELS.astype(">u2") * 257).reshape(len(PIXELS), -1)
    with deep.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        PngImagePlugin.putchunk(file, b"IHDR", struct.pack(">IIBBBBB", 40, 24, 16, 2, 0, 0, 0))
        PngImagePlugin.putchunk(file, b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows)))
        PngImagePlugin.putchunk(file, b"IEND")
    np.testing.assert_array_equal(shown(deep.read_bytes()), PIXELS)
    Image.fromarray(PIXELS).save(moving, save_all=True, append_images=[Image.fromarray(255 - PIXELS)])
    for file, message in ((deep, "16 bits"), (moving, "animation")):
        before = file.read_bytes()
        with pytest.raises(UnreadableImage, match=message):
            rotate_pixels(file, 1)
        assert file.read_bytes() == before


def test_each_function_names_the_other_for_other_formats(tmp_path):
    photo, drawing = tmp_path / "a.jpg", tmp_path / "b.png"
    photo.write_bytes(jpeg())
    Image.fromarray(PIXELS).save(drawing)
    with pytest.raises(UnreadableImage, match="--write exif"):
        rotate_pixels(photo, 1)
    with pytest.raises(UnreadableImage, match="--write pixels"):
        rotate_by_exif(drawing, 1)


def test_what_cannot_be_written_stays_as_it_was(tmp_path, monkeypatch):
    file = tmp_path / "a.jpg"
    file.write_bytes(jpeg())
    file.chmod(0o640)

    def full(*_):
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space"):
            rotate_by_exif(file, 1)
    assert file.read_bytes() == jpeg() and list(tmp_path.iterdir()) == [file]
    rotate_by_exif(file, 1)
    assert file.stat().st_mode & 0o777 == 0o640 and list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(("rotate", "suffix"), [(rotate_by_exif, "jpg"), (rotate_pixels, "png")])
def test_a_read_only_file_stays_as_it_was_and_a_link_remains_a_link(rotate, suffix, tmp_path):
    file, link = tmp_path / f"a.{suffix}", tmp_path / f"link.{suffix}"
    Image.fromarray(PIXELS).save(file)
    link.symlink_to(file.name)
    before = file.read_bytes()
    file.chmod(0o444)
    with pytest.raises(OSError, match="read-only"):
        rotate(link, 1)
    assert file.read_bytes() == before and set(tmp_path.iterdir()) == {file, link}
    file.chmod(0o644)
    rotate(link, 1)
    assert link.is_symlink()
    np.testing.assert_array_equal(shown(file.read_bytes()), np.rot90(shown(before)))
