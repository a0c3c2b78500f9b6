"""Files of more than 8 bits: what is read is what is in them, and hostile ones end in one message."""

import struct
import time
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from support.command_line import invoke
from support.value_images import png16, tiff, values

from rotnet_keras.config.sections import Data
from rotnet_keras.data.audit import understand
from rotnet_keras.data.datasets import load
from rotnet_keras.data.decoding import (
    UnreadableImage,
    read_center,
    read_displayed,
    read_header,
    read_image,
    read_whole,
)
from rotnet_keras.data.image_files import transpose
from rotnet_keras.errors import DataError
from rotnet_keras.inference.loading import list_image_files

FIVE = values((20, 30, 5))


def write(path, content):
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["uint16", "int16", "uint32", "int32", "float32", "float64", "int8"])
@pytest.mark.parametrize("form", [{}, {"planar": True}, {"rows": 7}, {"deflate": True, "rows": 3, "planar": True}])
def test_a_tiff_of_any_type_and_channels_gives_its_values(tmp_path, kind, form, order):
    pixels = values((20, 30, 5), kind, 99)
    if kind.startswith(("int", "float")):
        pixels = (pixels - 50).astype(kind)
    file = write(tmp_path / "a.tif", tiff(pixels, order=order, **form))
    header = read_header(file)
    assert (header.width, header.height, header.channels) == (30, 20, 5) and header.deep
    np.testing.assert_array_equal(read_whole(file, 5, deep=True), pixels.astype(np.float32))


@pytest.mark.parametrize("order", ["<", ">"])
def test_differences_between_neighbours_are_undone(tmp_path, order):
    file = write(tmp_path / "a.tif", tiff(FIVE, order=order, deflate=True, predictor=2))
    np.testing.assert_array_equal(read_whole(file, 5, deep=True), FIVE.astype(np.float32))


def test_twelve_packed_bits(tmp_path):
    pixels = values((6, 10))
    bits = (pixels[..., None] >> np.arange(11, -1, -1)) & 1
    packed = np.packbits(bits.reshape(6, -1).astype(np.uint8), axis=1)
    replaced = [(256, 4, 10), (258, 3, 12)]
    file = write(tmp_path / "a.tif", tiff(packed, tags=replaced))
    assert read_header(file).bits == 12
    np.testing.assert_array_equal(read_whole(file, 1, deep=True)[..., 0], pixels)
    np.testing.assert_array_equal(read_whole(file, 1)[..., 0], np.rint(pixels * (255 / 4095)))


def test_pages_of_more_than_8_bits_are_channels(tmp_path):
    pages = [FIVE[..., channel] for channel in range(5)]
    file = write(tmp_path / "a.tif", tiff(*pages))
    assert read_header(file).channels == 5
    np.testing.assert_array_equal(read_whole(file, 5, deep=True), FIVE)
    first = write(tmp_path / "b.tif", tiff(*(page.astype(np.uint8) for page in pages)))
    assert read_header(first).channels == 1


@pytest.mark.parametrize("other", [FIVE[:9, :, 1], FIVE[..., 1].astype(np.float32)], ids=["smaller", "floats"])
def test_planes_that_differ_are_refused_with_both(tmp_path, other):
    file = write(tmp_path / "a.tif", tiff(FIVE[..., 0], other))
    with pytest.raises(
        UnreadableImage, match=r"its planes differ: the first has 30 x 20 x 1 values of 16 bits, number 2"
    ):
        read_header(file)


@pytest.mark.parametrize("bands", [1, 2, 3, 4])
def test_png_keeps_16_bits_and_makes_transparent_parts_white(tmp_path, bands):
    pixels = values((20, 30, bands), most=65535)
    if bands % 2 == 0:
        pixels[..., -1] = 65535
        pixels[:5, :, -1] = 0
    file = write(tmp_path / "a.png", png16(pixels))
    channels = bands - (bands % 2 == 0)
    expected = pixels[..., :channels].copy()
    expected[:5] = 65535 if bands % 2 == 0 else expected[:5]
    assert (read_header(file).bits, read_header(file).channels) == (16, channels)
    np.testing.assert_array_equal(read_whole(file, channels, deep=True), expected)


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32", ">f8", "int32"])
def test_npy_files_of_one_image(tmp_path, kind):
    pixels = values((20, 30, 4), most=200).astype(kind)
    np.save(tmp_path / "a.npy", np.asfortranarray(pixels))
    deep = kind != "uint8"
    assert read_header(tmp_path / "a.npy").deep == deep
    np.testing.assert_array_equal(read_whole(tmp_path / "a.npy", 4, deep=deep), pixels)


@pytest.mark.parametrize(
    ("array", "why"),
    [
        (np.zeros((3, 20, 30)), r"looks like \(C, H, W\): save it as x.transpose\(1, 2, 0\)"),
        (np.zeros(9), "expected one image"),
        (np.zeros((2, 20, 30, 3)), "expected one image"),
        (np.zeros((20, 30), complex), "expected whole or floating-point numbers"),
        (np.array([[{}]]), "expected whole or floating-point numbers"),
    ],
)
def test_arrays_that_are_no_image_say_what_is_expected(tmp_path, array, why):
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(UnreadableImage, match=why):
        read_header(tmp_path / "a.npy")


@pytest.mark.parametrize("suffix", ["tif", "npy"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_no_numbers_are_counted(tmp_path, suffix, bad):
    pixels = values((20, 30), "float32")
    pixels[3, 4:6] = bad
    write(tmp_path / "a.tif", tiff(pixels))
    np.save(tmp_path / "a.npy", pixels)
    with pytest.raises(UnreadableImage, match="2 of its 600 values are no finite numbers"):
        read_whole(tmp_path / f"a.{suffix}", 1, deep=True)


def test_an_image_of_50_000_by_50_000_pixels_is_refused_by_its_header(tmp_path, monkeypatch):
    huge = [(256, 4, 50_000), (257, 4, 50_000)]
    write(tmp_path / "a.tif", tiff(FIVE, tags=huge))
    png = png16(values((2, 2, 3)))
    header = b"IHDR" + struct.pack(">II", 50_000, 50_000) + png[24:29]
    write(tmp_path / "a.png", png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:])
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (50000, 50000)}\n"
    write(tmp_path / "a.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)
    for suffix, count in (
        ("tif", "12,500,000,000 values in all channels"),
        ("png", "pixels"),
        ("npy", "2,500,000,000"),
    ):
        with pytest.raises(UnreadableImage, match=f"it has .*{count}.* too many: at most 89,478,485 are decoded"):
            read_header(tmp_path / f"a.{suffix}")
    write(tmp_path / "b.tif", tiff(FIVE))
    monkeypatch.setenv("ROTNET_MAX_PIXELS", "2999")
    with pytest.raises(UnreadableImage, match=r"it has 3,000 values .* set the environment variable ROTNET_MAX_PIXELS"):
        read_header(tmp_path / "b.tif")


@pytest.mark.parametrize(
    ("tags", "why"),
    [
        ([(259, 3, 7)], "compressed in a way that is not read"),
        ([(258, 3, [16, 16, 16, 16, 8])], "its planes differ"),
        ([(258, 3, [24] * 5)], "of a kind that is not read"),
        ([(262, 3, 8)], "colours of a kind that is not read"),
        ([(273, 4, [10**9])], "the file is truncated"),
        ([(278, 4, 3)], "it should have 7 segments, and has 1"),
        ([(279, 4, [10])], "the file is truncated"),
        ([(317, 3, 9)], "its predictor 9 is not known"),
        ([(277, 3, 0)], "no pixels"),
    ],
)
def test_a_tiff_that_lies_ends_in_one_message(tmp_path, tags, why):
    file = write(tmp_path / "a.tif", tiff(FIVE, tags=tags))
    with pytest.raises(UnreadableImage, match=why):
        read_whole(file, 5, deep=True)


def test_a_small_segment_does_not_become_a_large_one(tmp_path):
    bomb = values((2000, 2000), most=0)
    content = tiff(bomb, deflate=True)
    assert len(content) < 50_000
    small = [(256, 4, 30), (257, 4, 20), (278, 4, 20)]
    file = write(tmp_path / "a.tif", tiff(bomb, deflate=True, tags=small))
    assert read_whole(file, 1, deep=True).shape == (20, 30, 1)


def test_directories_of_many_numbers_end_in_one_message(tmp_path):
    count = 3_000_000
    entry = struct.pack("<HHII", 273, 4, count, 100)
    dimensions = [(256, 30), (257, 20), (258, 16), (262, 1)]
    small = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in dimensions)
    length = 2 + 12 * 5 + 4
    pages = b"".join(
        struct.pack("<H", 5) + small + entry + struct.pack("<I", 8 + length * (number + 1) if number < 9 else 0)
        for number in range(10)
    )
    file = write(tmp_path / "b.tif", b"II*\0" + struct.pack("<I", 8) + pages + bytes(4 * count))
    with pytest.raises(UnreadableImage, match="too many numbers"):
        read_header(file)


CONTENTS = [tiff(FIVE, deflate=True, rows=4), tiff(FIVE[..., 0], FIVE[..., 1]), png16(FIVE[..., :3])]


@settings(max_examples=80, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_spoilt_files_are_images_or_there_is_one_error(tmp_path_factory, data):
    content = bytearray(data.draw(st.sampled_from(CONTENTS)))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(8, min(len(content) - 1, 300)))] = data.draw(st.integers(0, 255))
    file = write(tmp_path_factory.getbasetemp() / "spoilt", bytes(content[: data.draw(st.integers(20, len(content)))]))
    start = time.process_time()
    try:
        header = read_header(file)
        read_image(file, 8, header.channels, deep=header.deep)
    except UnreadableImage as error:
        assert str(error).strip()
    assert time.process_time() - start < 5


def test_what_training_sees_is_what_a_trained_network_sees(tmp_path):
    for number in range(4):
        write(tmp_path / f"{number}.tif", tiff(values((20, 30, 5), seed=number)))
    for cache in ("memory", "disk", "none"):
        data = load(Data(name=str(tmp_path), size=16, validation=0.0, cache=cache))
        images = data.train.images(slice(None))
        assert images.dtype == np.float32 and images.shape == (4, 16, 16, 5)
        for number in range(4):
            expected = read_center(tmp_path / f"{number}.tif", 16, 5, 16, deep=True)
            np.testing.assert_allclose(images[number], expected, rtol=1e-6)
    assert len(data.values.low) == 5 and data.displayed(images).shape == (4, 16, 16, 3)
    with pytest.raises(DataError, match=r"data\.shown: expected channels below 5"):
        load(Data(name=str(tmp_path), size=16, shown=[5]))


def test_the_range_is_that_of_percentiles_and_outliers_do_not_move_it(tmp_path):
    pixels = np.tile(np.arange(100, 1100, dtype=np.uint16), 20).reshape(20, 1000, 1)
    hot = pixels.copy()
    hot[0, :3] = 65535
    for name, array in (("plain", pixels), ("hot", hot)):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "a.tif", tiff(array))
    ranges, means = [], []
    for name in ("plain", "hot"):
        data = load(Data(name=str(tmp_path / name), size=[20, 1000], validation=0.0))
        ranges.append((data.values.low[0], data.values.high[0]))
        means.append(data.mean[0])
    assert ranges[0] == pytest.approx((101, 1098), abs=1.5) and ranges[1] == pytest.approx(ranges[0], abs=2)
    assert means[0] == pytest.approx(599.5, abs=1) and means[1] == pytest.approx(means[0], abs=1)


def test_files_of_other_bits_or_channels_are_named(tmp_path):
    for number in range(3):
        write(tmp_path / f"{number}.png", png16(values((20, 30, 3), most=65535)))
    np.save(tmp_path / "eight.npy", np.zeros((20, 30, 3), np.uint8))
    data = load(Data(name=str(tmp_path), size=8, validation=0.0))
    assert len(data.train) == 3 and "eight.npy (it has 8 bits" in data.notes[0]
    assert "1 of a sample of 4 have 8 and are skipped" in dict(understand(Data(name=str(tmp_path))))["values"]
    np.save(tmp_path / "five.npy", np.zeros((20, 30, 5), np.uint16))
    with pytest.raises(DataError, match="different numbers of channels; of a sample: 3 of 3, 1 of 5"):
        load(Data(name=str(tmp_path), size=8))


def test_a_dry_run_and_init_say_what_is_done_with_the_bits(tmp_path):
    (tmp_path / "cells").mkdir()
    for number in range(3):
        write(tmp_path / "cells" / f"{number}.tif", tiff(values((20, 30, 5), seed=number)))
    result = invoke("run", "folder", f"data.name={tmp_path / 'cells'}", "--dry-run", cwd=tmp_path)
    printed = " ".join(result.stdout.split())
    assert result.returncode == 0, result.stderr
    assert "channels 5 channels" in printed
    assert "values 16 bits; kept as they are; the model scales them from the 0.1th to the 99.9th percentile" in printed


def test_people_see_three_channels(tmp_path):
    file = write(tmp_path / "a.tif", tiff(FIVE))
    seen = read_displayed(file, 16)
    assert seen.shape == (16, 16, 3) and seen.dtype == np.uint8 and seen.min() < 20 and seen.max() > 235
    other = read_displayed(file, 16, shown=[4])
    assert (other[..., 0] == other[..., 1]).all() and not (other[..., 0] == seen[..., 0]).all()


def test_files_of_which_only_the_first_image_is_read_are_told(tmp_path):
    frames = [Image.fromarray(np.full((40, 40, 3), level, np.uint8)) for level in (0, 255)]
    for name, kind in (("pages.tif", "TIFF"), ("moving.gif", "GIF"), ("moving.png", "PNG"), ("moving.webp", "WEBP")):
        options = {"lossless": True} if kind == "WEBP" else {}
        frames[0].save(tmp_path / name, kind, save_all=True, append_images=frames[1:], **options)
        assert read_whole(tmp_path / name, 3).max() == 0
    frames[0].save(tmp_path / "one.png")
    frames[0].save(tmp_path / "phone.jpg", "MPO", save_all=True, append_images=frames[1:])
    said = "4 of a sample of 6 {} files of several pages or frames, of which the first is read"
    assert said.format("are") in dict(understand(Data(name=str(tmp_path))))["values"]
    notes = []
    list_image_files([tmp_path], notes.append)
    assert notes == [said.format("images are")]


def test_pages_of_colours_with_more_than_8_bits_are_told(tmp_path):
    colours = values((20, 30, 3))
    one = read_header(write(tmp_path / "one.tif", tiff(colours, tags=[(262, 3, 2)])))
    two = read_header(write(tmp_path / "two.tif", tiff(colours, colours, tags=[(262, 3, 2)])))
    assert one.note == "" and "the first is read" in two.note


def save_splits(root, suffix="npy", **arrays):
    """Write the images of each split."""
    for split, images in arrays.items():
        (root / split).mkdir(parents=True)
        for number, image in enumerate(images):
            file = root / split / f"{number}.{suffix}"
            if suffix == "npy":
                np.save(file, image)
            else:
                file.write_bytes(tiff(image) if suffix == "tif" else png16(image))
    return root


FRACTIONS = np.random.default_rng(0).random((4, 20, 30, 2)).astype(np.float32)


@pytest.mark.parametrize(
    ("suffix", "train", "test"),
    [
        ("npy", FRACTIONS, 255 * FRACTIONS),
        ("npy", 255 * FRACTIONS, FRACTIONS),
        ("npy", 2 * FRACTIONS - 1, 255 * FRACTIONS),
        ("tif", values((4, 20, 30, 2)), values((4, 20, 30, 2), most=65535)),
        ("png", values((4, 20, 30, 1)), values((4, 20, 30, 1), most=65535)),
    ],
)
def test_splits_on_several_scales_are_refused_before_anything_starts(tmp_path, suffix, train, test):
    root = save_splits(tmp_path / "cells", suffix, train=train, val=train[:2], test=test)
    result = invoke("run", "folder", f"data.name={root}", "--dry-run", cwd=tmp_path)
    assert result.returncode == 3 and "save all of them on one scale" in result.stderr, result.stderr
    assert "the test images from" in result.stderr and len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("train", "test", "said"),
    [
        (values((4, 20, 30, 2)), values((4, 20, 30, 2), most=7000, seed=1), "percentile of the training images"),
        (values((4, 20, 30, 2)), values((4, 20, 30, 2), most=900, seed=1), "percentile of the training images"),
        (values((4, 20, 30, 2)), np.zeros((1, 20, 30, 2), np.uint16), "the test images have 0 % of the range"),
        (values((4, 20, 30, 2), most=65535), values((4, 20, 30, 2)), "the test images have 6 % of the range"),
        (np.zeros((2, 20, 30, 2), np.uint16), values((4, 20, 30, 2)), "percentile of the training images"),
    ],
    ids=["brighter", "darker", "black", "much darker", "black training images"],
)
def test_splits_of_one_instrument_may_differ(tmp_path, train, test, said):
    understood = dict(understand(Data(name=str(save_splits(tmp_path, "tif", train=train, test=test)))))
    assert understood["values"].startswith("16 bits") and said in understood["values"]
    assert ("of the range" in understood["values"]) == ("of the range" in said)


def test_a_bright_split_does_not_hide_one_of_few_bits_among_images_of_8(tmp_path):
    for split, most in (("train", 4095), ("test", 65535)):
        save_splits(tmp_path, "png", **{split: values((3, 20, 30, 1), most=most)})
        for number in range(5):
            Image.new("L", (30, 20), 25 * number).save(tmp_path / split / f"eight-{number}.png")
    with pytest.raises(
        DataError, match=r"16-bit files in .* for train go up to 4,09\d of 65,535.* Multiply them by 16"
    ):
        understand(Data(name=str(tmp_path)))
    # A dark photo beside bright ones is one.
    for number in range(3):
        (tmp_path / "train" / f"{number}.png").write_bytes(png16(values((20, 30, 1), most=9000)))
    assert "16 are scaled by 255 / 65,535" in dict(understand(Data(name=str(tmp_path))))["values"]


@pytest.mark.parametrize("orientation", range(1, 10))
@pytest.mark.parametrize("kind", ["tif", "pages", "png"])
def test_every_orientation_is_applied_to_files_of_more_than_8_bits(tmp_path, kind, orientation):
    tags = [(274, 3, orientation)]
    pixels = FIVE[..., :3] if kind == "png" else FIVE
    pages = [pixels[..., channel] for channel in range(5)] if kind == "pages" else [pixels]
    content = png16(pixels, orientation) if kind == "png" else tiff(*pages, tags=tags)
    file = write(tmp_path / f"a.{'png' if kind == 'png' else 'tif'}", content)
    meant = orientation if orientation < 9 else 1
    upright = np.stack(
        [
            np.asarray(transpose(Image.fromarray(pixels[..., channel].astype(np.int32)), meant))
            for channel in range(pixels.shape[2])
        ],
        axis=-1,
    )
    header = read_header(file)
    assert (header.width, header.height) == ((20, 30) if 5 <= meant <= 8 else (30, 20))
    assert header.orientation == meant and header.bits == 16
    channels = pixels.shape[2]
    np.testing.assert_array_equal(read_whole(file, channels, deep=True), upright)
    plain = write(tmp_path / "b.tif", tiff(upright.astype(np.uint16)))
    np.testing.assert_array_equal(
        read_image(file, 16, channels, (2.0, 3.0, 10.0, 12.0), 8, deep=True),
        read_image(plain, 16, channels, (2.0, 3.0, 10.0, 12.0), 8, deep=True),
    )


def test_a_tiff_of_colours_that_are_not_known_says_what_to_do(tmp_path):
    file = write(tmp_path / "a.tif", tiff(FIVE[..., :2].astype(np.uint8), tags=[(262, 3, 8)]))
    with pytest.raises(UnreadableImage, match=r"a TIFF file of a kind that is not read.* put its pixels into an \.npz"):
        read_header(file)
