"""Values of 16 bits in image files that a trained network is shown."""

import os
import struct
import sys
import zlib

import numpy as np
import pytest
from PIL import Image
from support.command_line import invoke

from rotnet_keras.config.sections import Data
from rotnet_keras.data.audit import understand
from rotnet_keras.data.decoding import read_header
from rotnet_keras.errors import DataError
from rotnet_keras.inference.duplicates import WholeImages
from rotnet_keras.inference.few_labels import read_labels
from rotnet_keras.inference.loading import ImageLoader, list_image_files

GREY = (np.arange(24 * 24) % 251).astype(np.uint8).reshape(24, 24)
COLOUR = np.stack([GREY, GREY.T, 255 - GREY], axis=-1)


def save(path, pixels):
    """Save pixels of 16 bits; Pillow writes no colours of 16 bits."""
    if pixels.ndim == 2:
        Image.fromarray(pixels).save(path)
        return path
    height, width, bands = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6}[bands], 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    packed = (struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))
    return path


@pytest.mark.parametrize(
    ("pixels", "suffix"), [(GREY, "png"), (GREY, "tif"), (COLOUR, "png")], ids=["grey-png", "grey-tif", "colour-png"]
)
def test_sixteen_bits_show_what_eight_do(tmp_path, pixels, suffix):
    deep = save(tmp_path / f"deep.{suffix}", pixels.astype(np.uint16) * 257)
    twelve = save(tmp_path / f"twelve.{suffix}", (pixels.astype(np.uint16) * 257 // 16) * 16)
    Image.fromarray(pixels).save(tmp_path / "eight.png")
    channels = 3 if pixels.ndim == 3 else 1
    notes = []
    assert list_image_files([deep, twelve], notes.append) == [deep, twelve]
    assert len(notes) == 1 and "scaled from their whole range" in notes[0] and deep.name in notes[0]
    assert read_header(deep).bits == 16
    expected = ImageLoader(24, 24, channels).load(tmp_path / "eight.png").astype(int)
    assert (expected.squeeze() == pixels).all()
    assert (ImageLoader(24, 24, channels).load(deep) == expected).all()
    assert abs(ImageLoader(24, 24, channels).load(twelve) - expected).max() <= 1
    # Duplicates are compared as people see them, whatever the range of the values is.
    whole = [WholeImages(24, 24, channels).load(tmp_path / name).ravel() for name in ("eight.png", deep.name)]
    assert np.corrcoef(*whole)[0, 1] > 0.999


@pytest.mark.parametrize("highest", [1023, 4095, 16383])
@pytest.mark.parametrize("kind", ["grey.png", "grey.tif", "colour.png", "transparent.png"])
def test_few_bits_in_sixteen_are_refused(tmp_path, kind, highest):
    values = np.linspace(0, highest, 576).astype(np.uint16).reshape(24, 24)
    if not kind.startswith("grey"):
        values = np.stack([values, values.T, values], axis=-1)
    if kind.startswith("transparent"):
        values = np.concatenate([values, np.full((24, 24, 1), 65535, np.uint16)], axis=-1)
    save(tmp_path / kind, values)
    Image.fromarray(GREY).save(tmp_path / "eight.png")  # An image of other values hides nothing.
    with pytest.raises(DataError, match=f"go up to {highest:,} of 65,535.* Multiply them by {65535 // highest},"):
        list_image_files([tmp_path])
    for name in ("a", "b"):
        (tmp_path / "labelled" / name).mkdir(parents=True)
        for number in range(2):
            save(tmp_path / "labelled" / name / f"{number}-{kind}", values)
    with pytest.raises(DataError, match=f"go up to {highest:,} of 65,535"):
        read_labels(tmp_path / "labelled")


def test_values_of_other_files_settle_whether_a_dark_one_is_dark(tmp_path):
    save(tmp_path / "dark.png", GREY.astype(np.uint16) * 16)
    save(tmp_path / "light.png", GREY.astype(np.uint16) * 257)
    assert len(list_image_files([tmp_path])) == 2


def test_signed_values_below_zero_are_no_image(tmp_path):
    Image.fromarray(np.full((24, 24), -1000, np.int32)).save(tmp_path / "ct.tif")
    with pytest.raises(Exception, match="its values of 32 bits have no known range"):
        ImageLoader(24, 24, 1).load(tmp_path / "ct.tif")


@pytest.mark.parametrize(
    "arguments",
    [
        ("embed", "airbench4_photos", "photos", "--to", "f.npz"),
        ("upright", "photos"),
        ("measure-upright", "photos", "--to", "m.json"),
        ("anomalies", "airbench4_photos", "photos"),
        ("probe", "airbench4_photos", "--labels", "labels.csv"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_commands_refuse_them_before_tensorflow_is_loaded(tmp_path, monkeypatch, arguments):
    monkeypatch.setitem(sys.modules, "rotnet_keras.engine", None)
    (tmp_path / "photos").mkdir()
    for number in range(4):
        save(tmp_path / "photos" / f"{number}.png", GREY.astype(np.uint16) * 16)
    rows = "".join(f"photos/{number}.png,{number // 2}\n" for number in range(4))
    (tmp_path / "labels.csv").write_text("file,label\n" + rows)
    result = invoke(*arguments, cwd=tmp_path)
    assert result.returncode == 3 and "go up to 4,000 of 65,535" in result.stderr, result.stderr
    assert "Multiply them by 16, or save the images with 8 bits" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_what_of_a_folder_is_left_out_is_said(tmp_path, monkeypatch):
    photos, elsewhere, scandir = tmp_path / "photos", tmp_path / "elsewhere", os.scandir
    for folder in (photos, elsewhere, photos / "closed"):
        folder.mkdir()
    Image.fromarray(GREY).save(photos / "a.png")
    Image.fromarray(GREY).save(elsewhere / "b.png")
    (photos / "x.heic").touch()
    (photos / "sub").symlink_to(elsewhere)

    def refused(path):
        if os.fspath(path) == str(photos / "closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    notes = []
    assert list_image_files([photos], notes.append) == [photos / "a.png"]
    assert notes == [
        f"{photos}: 1 files have formats that are not read: 1 .heic",
        f"{photos}: links to folders are not followed: sub",
        f"{photos}: folders that may not be read: closed",
    ]
    assert "folders that may not be read: closed" in dict(understand(Data(name=str(photos))))["left out"]
    (photos / "a.png").unlink()
    with pytest.raises(
        DataError, match=r"the folder holds no images; 1 files have formats that are not read: 1 \.heic"
    ):
        list_image_files([photos])


def test_what_of_a_folder_of_labels_is_left_out_is_said(tmp_path):
    for number, place in enumerate(("train/cats", "train/dogs", "test/cats", "val/dogs")):
        (tmp_path / place).mkdir(parents=True)
        for copy in range(2):
            Image.fromarray(GREY + number).save(tmp_path / place / f"{copy}.png")
    Image.fromarray(GREY).save(tmp_path / "cover.png")
    (tmp_path / "train" / "cats" / "x.heic").touch()
    notes = []
    assert [label for _, label in read_labels(tmp_path, notes.append)] == ["cats"] * 2 + ["dogs"] * 2
    assert notes == [
        f"{tmp_path}: only the training images are read, not 2 validation and 2 test images",
        f"{tmp_path}: 1 images beside the folders of the splits are left out",
        f"{tmp_path}: 1 files have formats that are not read: 1 .heic",
    ]
    Image.fromarray(GREY).save(tmp_path / "train" / "cover.png")
    with pytest.raises(DataError, match="a subfolder for each class, found none: 1 images lie beside the 2 folders"):
        read_labels(tmp_path)
