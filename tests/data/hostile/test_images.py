"""Images of strangers: what is no image starts nothing and waits for nothing, and what is too much says so at once."""

import os
import re
import subprocess
import sys
import threading
import tracemalloc
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import rotnet_tui
from PIL import Image

import rotnet_keras
from rotnet_keras.config.sections import Data
from rotnet_keras.data import image_files
from rotnet_keras.data.annotations import BrokenAnnotation, read_mask
from rotnet_keras.data.datasets import load
from rotnet_keras.data.decoding import UnreadableImage, read_header, read_image, read_whole
from rotnet_keras.errors import DataError
from rotnet_keras.inference.lossless_rotation import rotate_by_exif, rotate_pixels

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(a) (w) file showpage\n%%EOF\n"
WAYS = [read_header, lambda file: read_image(file, 8, 3), lambda file: read_whole(file, 3), read_mask]


def encoded(kind, size=(40, 30), mode="RGB", **options):
    buffer = BytesIO()
    Image.new(mode, size, 99).save(buffer, kind, **options)
    return buffer.getvalue()


def with_scans(count):
    """A progressive JPEG one scan of which comes again and again, until there are so many."""
    content = encoded("JPEG", progressive=True)
    starts = [found.start() for found in re.finditer(b"\xff\xda", content)]
    scan = content[starts[-1] : -2]
    return content[:-2] + (count - len(starts)) * scan + content[-2:]


@pytest.mark.parametrize("read", WAYS)
def test_postscript_that_is_called_a_jpeg_starts_no_program(read, tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *a, **k: started.append(a))
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: started.append(a))
    (tmp_path / "photo.jpg").write_bytes(EPS)
    # Pillow itself would take it.
    assert Image.open(tmp_path / "photo.jpg").format == "EPS"
    with pytest.raises((UnreadableImage, BrokenAnnotation), match="expected JPEG, PNG, WebP, BMP, GIF or TIFF"):
        read(tmp_path / "photo.jpg")
    with pytest.raises(UnreadableImage, match="expected JPEG"):
        rotate_by_exif(tmp_path / "photo.jpg", 1)
    assert not started


@pytest.mark.parametrize("kind", ["PPM", "TGA", "ICO", "PCX", "SGI", "DDS", "JPEG2000"])
def test_formats_that_are_not_documented_are_not_read(kind):
    with pytest.raises(UnreadableImage, match="it is not an image, or damaged: expected JPEG"):
        read_image(BytesIO(encoded(kind)), 8, 3)


def test_pillow_is_given_the_formats_wherever_it_opens_a_file():
    sources = [*Path(rotnet_keras.__file__).parent.rglob("*.py"), *Path(rotnet_tui.__file__).parent.rglob("*.py")]
    calls = [(file, call) for file in sources for call in re.findall(r"Image\.open\([^\n]*", file.read_text("utf-8"))]
    assert calls and not [(file, call) for file, call in calls if "formats=" not in call]


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_a_budget_of_pixels_names_the_number_and_how_to_raise_it(kind, monkeypatch):
    monkeypatch.setenv("ROTNET_MAX_PIXELS", "1_000")
    content = BytesIO(encoded(kind))
    message = "it has 1,200 pixels, which is too many: at most 1,000 are decoded; .* ROTNET_MAX_PIXELS to 1200"
    for read in WAYS[:3]:
        with pytest.raises(UnreadableImage, match=message):
            read(content)
    monkeypatch.setenv("ROTNET_MAX_PIXELS", "1200")
    assert read_image(content, 8, 3).shape == (8, 8, 3)


def test_a_large_jpeg_is_decoded_at_a_part_of_its_size_and_not_in_full(monkeypatch):
    monkeypatch.setenv("ROTNET_MAX_PIXELS", "1000")
    content = BytesIO(encoded("JPEG", (50, 40)))
    assert read_image(content, 8, 3).shape == (8, 8, 3)
    with pytest.raises(UnreadableImage, match="2,000 pixels, which is too many: at most 1,000"):
        read_image(content, 32, 3)
    with pytest.raises(UnreadableImage, match="2,000 pixels"):
        read_whole(content, 3)
    with pytest.raises(UnreadableImage, match=r"2,050 pixels, which is too many: at most 2,000"):
        read_header(BytesIO(encoded("JPEG", (50, 41))))


def test_a_header_that_promises_more_than_pillow_opens_is_told_in_the_same_words():
    content = bytearray(encoded("PNG"))
    content[16:24] = (60_000).to_bytes(4) * 2
    # The checksum of the header, which Pillow compares.
    content[29:33] = zlib.crc32(bytes(content[12:29])).to_bytes(4)
    with pytest.raises(UnreadableImage, match=r"3,600,000,000 pixels, .* ROTNET_MAX_PIXELS to 3600000000"):
        read_header(BytesIO(content))


@pytest.mark.parametrize("value", ["many", "0", "-5", "1e9", ""])
def test_a_budget_that_is_no_number_is_an_error(value, monkeypatch):
    monkeypatch.setenv("ROTNET_MAX_PIXELS", value)
    with pytest.raises(DataError, match=r"ROTNET_MAX_PIXELS: expected a whole number above 0, got"):
        read_header(BytesIO(encoded("PNG")))


def test_a_jpeg_of_thousands_of_scans_is_refused_before_it_is_decoded(monkeypatch):
    content = with_scans(5000)
    monkeypatch.setattr(Image.Image, "load", None)
    for read in WAYS[1:3]:
        with pytest.raises(
            UnreadableImage, match=r"it has 5,000 scans, .* at most 100 are; .*ROTNET_MAX_SCANS to 5000"
        ):
            read(BytesIO(content))


def test_the_budget_of_scans_can_be_raised_and_previews_do_not_count(monkeypatch):
    previews = encoded("JPEG")[2:]
    content = with_scans(100)
    segment = b"\xff\xe2" + (len(500 * b"\xff\xda12") + 2).to_bytes(2) + 500 * b"\xff\xda12"
    assert read_image(BytesIO(content[:2] + segment + content[2:]), 8, 3).shape == (8, 8, 3)
    # Behind the image, as phones store them.
    assert read_image(BytesIO(content + 50 * (b"\xff\xd8" + previews)), 8, 3).shape == (8, 8, 3)
    with pytest.raises(UnreadableImage, match="101 scans"):
        read_image(BytesIO(with_scans(101)), 8, 3)
    monkeypatch.setenv("ROTNET_MAX_SCANS", "101")
    assert read_image(BytesIO(with_scans(101)), 8, 3).shape == (8, 8, 3)


def test_large_images_are_decoded_one_after_another(monkeypatch):
    monkeypatch.setattr(image_files, "LARGE_PIXELS", 1000)
    entered = []

    def enter(size):
        with image_files.open_image(BytesIO(encoded("PNG", size))) as image, image_files.decoded(image):
            entered.append(size)

    with image_files.open_image(BytesIO(encoded("PNG"))) as image, image_files.decoded(image):
        large, small = (threading.Thread(target=enter, args=(size,)) for size in ((40, 31), (10, 10)))
        large.start(), small.start()
        small.join()
        large.join(0.05)
        assert entered == [(10, 10)]
    large.join()
    assert entered == [(10, 10), (40, 31)]


def test_decoding_for_a_small_square_keeps_no_copy_of_the_large_image():
    """NumPy's memory is traced, Pillow's is not: a copy of all pixels as an array would be 48 MB."""
    content = BytesIO(encoded("PNG", (4000, 4000), "L"))
    tracemalloc.start()
    read_image(content, 32, 3)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5e6


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "link to a pipe"])
def test_what_is_no_regular_file_is_not_waited_for(kind, tmp_path):
    file = tmp_path / "a.png"
    if kind == "folder":
        file.mkdir()
    elif kind == "device":
        file.symlink_to("/dev/zero")
    else:
        os.mkfifo(tmp_path / "pipe")
        file.symlink_to("pipe") if "link" in kind else (tmp_path / "pipe").rename(file)
    for read in WAYS[:3]:
        with pytest.raises(UnreadableImage, match=r"regular file|directory"):
            read(file)
    with pytest.raises(BrokenAnnotation, match="mask"):
        read_mask(file)
    for rotate in (rotate_by_exif, rotate_pixels):
        with pytest.raises(OSError, match=r"regular file|directory"):
            rotate(file, 1)


def test_a_file_of_far_too_many_bytes_is_not_read(tmp_path, monkeypatch):
    """A file with a hole, which takes no room on the disk and would take its size in memory."""
    file = tmp_path / "a.jpg"
    file.write_bytes(encoded("JPEG"))
    images = load(Data(name=str(tmp_path), size=8, validation=0, cache="none")).train
    os.truncate(file, 3 << 30)
    for read in WAYS[:3]:
        with pytest.raises(UnreadableImage, match=r"3,221,225,472 bytes, .* at most 1,073,741,820 .* to 268435456"):
            read(file)
    pixels = images.store.decode([0], images.store.frames(np.zeros(1, int)), 8)[0]
    assert "larger than the 1,073,741,820 bytes" in pixels


def test_a_mask_of_too_many_pixels_is_a_broken_annotation(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(encoded("PNG", mode="P"))
    assert read_mask(tmp_path / "a.png").shape == (30, 40)
    monkeypatch.setenv("ROTNET_MAX_PIXELS", "1000")
    with pytest.raises(BrokenAnnotation, match=r"its mask cannot be read \(it has 1,200 pixels"):
        read_mask(tmp_path / "a.png")


def test_pillows_warnings_do_not_reach_the_terminal(tmp_path):
    """The EXIF data say that a text is where the file has ended; Pillow says so in its own words."""
    exif = b"Exif\0\0II*\0\x08\0\0\0" + b"\x01\0" + b"\x0f\x01\x02\0\x40\0\0\0\xff\xff\0\0" + b"\0\0\0\0"
    (tmp_path / "a.jpg").write_bytes(encoded("JPEG", exif=exif))
    plain = "from PIL import Image; Image.open('a.jpg').getexif().get(274)"
    ours = (
        "from pathlib import Path; from rotnet_keras.data.decoding import read_image; read_image(Path('a.jpg'), 8, 3)"
    )
    said = [
        subprocess.run(
            [sys.executable, "-W", "default", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
        ).stderr
        for code in (plain, ours)
    ]
    assert "Warning" in said[0] and "PIL" not in said[1] and "EXIF" not in said[1]
    assert read_image(tmp_path / "a.jpg", 8, 3).shape == (8, 8, 3)


def test_numpys_warnings_do_not_reach_the_terminal(tmp_path):
    """Python 2 wrote whole numbers of some arrays' headers with an L; NumPy reads them, and says so."""
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (8L, 8L, 3L)}".ljust(117) + b"\n"
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(192))
    plain = "import numpy; numpy.load('a.npy')"
    ours = "from pathlib import Path; from rotnet_keras.data.decoding import read_whole; read_whole(Path('a.npy'), 3)"
    said = [
        subprocess.run(
            [sys.executable, "-W", "default", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
        ).stderr
        for code in (plain, ours)
    ]
    assert "Python 2" in said[0] and "Python 2" not in said[1]
