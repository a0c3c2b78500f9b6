"""DICOM files: rescaled, windowed, black where values are low; hostile ones end in one message."""

import sys

import numpy as np
import pytest
from support.command_line import invoke
from support.value_images import values

from rotnet_keras.data.decoding import UnreadableImage, read_displayed, read_header, read_whole

pydicom = pytest.importorskip("pydicom")

PIXELS = values((20, 30))


def save(path, pixels=PIXELS, stored=12, syntax="1.2.840.10008.1.2.1", preamble=bytes(128), **about):
    found = pydicom.Dataset()
    found.file_meta = pydicom.dataset.FileMetaDataset()
    found.file_meta.TransferSyntaxUID = syntax
    found.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    found.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    found.Rows, found.Columns = pixels.shape[:2]
    found.SamplesPerPixel = pixels.shape[2] if pixels.ndim == 3 else 1
    found.PhotometricInterpretation = "RGB" if pixels.ndim == 3 else "MONOCHROME2"
    if pixels.ndim == 3:
        found.PlanarConfiguration = 0
    found.BitsAllocated, found.BitsStored, found.HighBit = 8 * pixels.itemsize, stored, stored - 1
    found.PixelRepresentation = int(pixels.dtype.kind == "i")
    for name, value in about.items():
        setattr(found, name, value)
    packed = syntax.startswith("1.2.840.10008.1.2.4")
    content = pydicom.encaps.encapsulate([b"JPEG"]) if packed else pixels.tobytes()
    found.add_new(0x7FE00010, "OW" if pixels.itemsize > 1 else "OB", content)
    found["PixelData"].is_undefined_length = packed
    found.preamble = preamble
    implicit = syntax == "1.2.840.10008.1.2"
    pydicom.dcmwrite(path, found, enforce_file_format=False, implicit_vr=implicit, little_endian=True)
    return path


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1"])
def test_stored_values_are_kept(tmp_path, syntax):
    file = save(tmp_path / "a.dcm", syntax=syntax)
    header = read_header(file)
    assert (header.width, header.height, header.channels, header.bits, header.note) == (30, 20, 1, 12, "")
    np.testing.assert_array_equal(read_whole(file, 1, deep=True)[..., 0], PIXELS)
    np.testing.assert_array_equal(read_whole(file, 1)[..., 0], np.rint(PIXELS * (255 / 4095)))


def test_hounsfield_units_are_rescaled_and_not_windowed(tmp_path):
    about = {"Modality": "CT", "RescaleSlope": 2, "RescaleIntercept": -1024, "WindowCenter": 40, "WindowWidth": 400}
    file = save(tmp_path / "a.dcm", **about)
    np.testing.assert_array_equal(read_whole(file, 1, deep=True)[..., 0], 2.0 * PIXELS - 1024)
    assert read_header(file).note == "rescaled" and read_header(file).deep
    with pytest.raises(UnreadableImage, match="no known range"):
        read_whole(file, 1)


def test_the_window_of_other_modalities_is_applied(tmp_path):
    from pydicom.pixels import apply_windowing

    file = save(tmp_path / "a.dcm", Modality="MR", WindowCenter=["2000", "1"], WindowWidth=["1000", "9"])
    seen = read_whole(file, 1, deep=True)[..., 0]
    assert seen.min() == 0 and seen.max() == 1 and read_header(file).note == "windowed"
    expected = apply_windowing(PIXELS, pydicom.dcmread(file)) / 4095
    np.testing.assert_allclose(seen, expected, atol=1e-6)


@pytest.mark.parametrize("about", [{}, {"Modality": "CR", "WindowCenter": 2000, "WindowWidth": 1000}])
def test_monochrome1_is_inverted(tmp_path, about):
    plain = read_whole(save(tmp_path / "a.dcm", **about), 1, deep=True)
    file = save(tmp_path / "b.dcm", PhotometricInterpretation="MONOCHROME1", **about)
    most = 1 if about else 4095
    np.testing.assert_allclose(read_whole(file, 1, deep=True), most - plain, atol=1e-6)
    assert "inverted (MONOCHROME1)" in read_header(file).note
    assert read_displayed(file, 16).shape == (16, 16, 3)


def test_signed_values_and_colours(tmp_path):
    signed = (PIXELS.astype(np.int16) - 2000).astype(np.int16)
    np.testing.assert_array_equal(read_whole(save(tmp_path / "a.dcm", signed, 16), 1, deep=True)[..., 0], signed)
    colours = values((20, 30, 3), "uint8", 255)
    file = save(tmp_path / "b.dcm", colours, 8)
    assert not read_header(file).deep
    np.testing.assert_array_equal(read_whole(file, 3), colours)


def test_a_file_that_begins_as_a_tiff_is_a_dicom_file(tmp_path):
    file = save(tmp_path / "a.dcm", preamble=b"II*\0" + bytes(124))
    np.testing.assert_array_equal(read_whole(file, 1, deep=True)[..., 0], PIXELS)


@pytest.mark.parametrize(
    ("about", "why"),
    [
        ({"syntax": "1.2.840.10008.1.2.4.50"}, "compressed by JPEG Baseline .* decompress it"),
        ({"syntax": "1.2.840.10008.1.2.1.99"}, "deflated as a whole"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "of PALETTE COLOR with 1 samples, which is not read"),
        ({"Rows": 50_000, "Columns": 50_000}, "2,500,000,000 values in all channels, which is too many"),
        ({"Rows": 2000}, "the file is truncated"),
        ({"BitsStored": 17}, "values of 17 bits, which is not read"),
    ],
)
def test_what_is_not_read_says_why(tmp_path, about, why):
    file = save(tmp_path / "a.dcm", **about)
    with pytest.raises(UnreadableImage, match=why):
        read_whole(file, 1, deep=True)


def test_spoilt_bytes_end_in_one_message(tmp_path):
    content = save(tmp_path / "a.dcm", RescaleSlope=2, RescaleIntercept=-5).read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(60):
        spoilt = bytearray(content)
        for place in rng.integers(132, len(content) - 1200, 4):
            spoilt[place] = rng.integers(256)
        file = tmp_path / "b.dcm"
        file.write_bytes(spoilt[: rng.integers(200, len(content))])
        try:
            read_whole(file, 1, deep=True)
        except UnreadableImage as error:
            assert str(error).strip()


def test_without_the_package_a_message_says_what_to_install(tmp_path, monkeypatch):
    save(tmp_path / "a.dcm")
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(UnreadableImage, match=r"pip install 'rotnet-keras\[dicom\]'"):
        read_header(tmp_path / "a.dcm")


def test_a_dry_run_says_what_is_done_with_the_values(tmp_path):
    (tmp_path / "scans").mkdir()
    for number in range(3):
        save(tmp_path / "scans" / f"{number}.dcm", Modality="CT", RescaleSlope=1, RescaleIntercept=-1024)
    result = invoke("run", "folder", f"data.name={tmp_path / 'scans'}", "--dry-run", cwd=tmp_path)
    printed = " ".join(result.stdout.split())
    assert result.returncode == 0, result.stderr
    assert "12 bits (signed, floating-point or rescaled); kept as they are" in printed
    assert "3 of a sample of 3 are rescaled" in printed


def test_of_several_frames_the_first_is_read_and_a_note_says_so(tmp_path):
    file = save(tmp_path / "a.dcm", np.concatenate([PIXELS, PIXELS + 1]), Rows=len(PIXELS), NumberOfFrames=2)
    assert "the first is read" in read_header(file).note
    np.testing.assert_array_equal(read_whole(file, 1, deep=True)[..., 0], PIXELS)
