"""The values of DICOM files, with the extra `rotnet-keras[dicom]`: rescaled, windowed, and black where they are low."""

import warnings
from typing import Any, BinaryIO

import numpy as np

from rotnet_keras.data.image_files import FIRST_ONLY, UnreadableImage
from rotnet_keras.data.values.files import ValueFile

INSTALL = "pip install 'rotnet-keras[dicom]'"
# Transfer syntaxes whose pixels are read: as they are, or by pydicom's own decoder of run lengths.
IMPLICIT, EXPLICIT, BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
RUN_LENGTHS = "1.2.840.10008.1.2.5"
# Unpacking this one has no limit in pydicom.
DEFLATED = b"1.2.840.10008.1.2.1.99"
META_BYTES = 4096
# Modalities whose values have a unit, such as Hounsfield's: a window only says how one file is looked at.
WITH_UNIT = ("CT", "PT")
COLOURS = {"MONOCHROME1": 1, "MONOCHROME2": 1, "RGB": 3}

warnings.filterwarnings("ignore", module="pydicom")


def dicom_header(file: BinaryIO) -> ValueFile:
    """Return what the header of a DICOM file says; of several frames the first one is read.

    Raises:
        UnreadableImage: it is damaged, or of a kind that is not read, or pydicom is not installed.
    """
    found = _dataset(file, pixels=False)
    try:
        width, height, samples = int(found.Columns), int(found.Rows), int(found.get("SamplesPerPixel", 1))
        allocated, stored = int(found.BitsAllocated), int(found.get("BitsStored", found.BitsAllocated))
        colours, syntax = str(found.PhotometricInterpretation), found.file_meta.TransferSyntaxUID
        signed, frames = bool(found.get("PixelRepresentation", 0)), int(found.get("NumberOfFrames") or 1)
    except Exception as error:  # pydicom raises nearly anything on damaged files.
        raise UnreadableImage(f"a DICOM file without an image ({error})") from None
    if syntax not in (IMPLICIT, EXPLICIT, BIG_ENDIAN, RUN_LENGTHS):
        raise UnreadableImage(
            f"a DICOM file that is compressed by {syntax.name}, which is not read: decompress it, for example with "
            "gdcmconv --raw"
        )
    if COLOURS.get(colours) != samples:
        raise UnreadableImage(
            f"a DICOM file of {colours} with {samples} samples, which is not read: expected MONOCHROME1, "
            "MONOCHROME2 or RGB"
        )
    if allocated not in (8, 16, 32) or not 1 <= stored <= allocated or min(width, height) < 1:
        raise UnreadableImage(f"a DICOM file of {width} x {height} values of {stored} bits, which is not read")
    window = _window(found)
    rescaled = "RescaleSlope" in found or "ModalityLUTSequence" in found
    unsigned = not signed and not rescaled and window is None
    notes = [
        *(["rescaled"] if rescaled else []),
        *(["windowed"] if window else []),
        *(["inverted (MONOCHROME1)"] if colours == "MONOCHROME1" else []),
        *([FIRST_ONLY] if frames > 1 else []),
    ]
    return ValueFile(
        width,
        height,
        samples,
        stored,
        unsigned,
        1,
        lambda file: _values(_dataset(file, pixels=True), window),
        ", ".join(notes),
    )


def _dataset(file: BinaryIO, pixels: bool) -> Any:
    try:
        import pydicom
    except ImportError:
        raise UnreadableImage(f"a DICOM file, which needs another package: {INSTALL}") from None
    file.seek(0)
    if DEFLATED in file.read(META_BYTES):
        raise UnreadableImage("a DICOM file that is deflated as a whole, which is not read: save it uncompressed")
    file.seek(0)
    try:
        return pydicom.dcmread(file, stop_before_pixels=not pixels)
    except Exception as error:  # pydicom raises nearly anything on damaged files.
        raise UnreadableImage(f"a damaged DICOM file ({error})") from None


def _window(found: Any) -> tuple[float, float] | None:
    """Return centre and width of a file's first window; None where it has none, or values with a unit."""
    if str(found.get("Modality", "")) in WITH_UNIT:
        return None
    try:
        centre, width = (found.get(name) for name in ("WindowCenter", "WindowWidth"))
        if centre is None or width is None:
            return None
        pair = tuple(float(v if isinstance(v, int | float | str) else v[0]) for v in (centre, width))
    except Exception:  # A damaged window.
        return None
    return (pair[0], pair[1]) if np.isfinite(pair).all() and pair[1] >= 1 else None


def _values(found: Any, window: tuple[float, float] | None) -> np.ndarray:
    """Return the values (H, W, C) of the first frame."""
    try:
        stored = _stored(found)
        return _scaled(found, stored, window)
    except UnreadableImage:
        raise
    except Exception as error:  # pydicom raises nearly anything on damaged files.
        raise UnreadableImage(f"its pixels cannot be read ({error})") from None


def _stored(found: Any) -> np.ndarray:
    """Return the stored values (H, W, C) of the first frame."""
    height, width, samples = int(found.Rows), int(found.Columns), int(found.get("SamplesPerPixel", 1))
    allocated, bits = int(found.BitsAllocated), int(found.get("BitsStored", found.BitsAllocated))
    signed, syntax = bool(found.get("PixelRepresentation", 0)), found.file_meta.TransferSyntaxUID
    count = height * width * samples
    if syntax == RUN_LENGTHS:
        from pydicom.pixels import get_decoder

        values = get_decoder(syntax).as_array(found, index=0, raw=True)[0].reshape(height, width, samples)
    else:
        kind = np.dtype(f"{'>' if syntax == BIG_ENDIAN else '<'}{'i' if signed else 'u'}{allocated // 8}")
        content = bytes(found.PixelData[: count * kind.itemsize])
        if len(content) != count * kind.itemsize:
            raise UnreadableImage("the file is truncated")
        if syntax == BIG_ENDIAN and allocated == 8 and found["PixelData"].VR == "OW":
            raise UnreadableImage("a DICOM file of bytes in words of the other order, which is not read: save it anew")
        values = np.frombuffer(content, kind)
        planar = samples > 1 and int(found.get("PlanarConfiguration", 0)) == 1
        values = values.reshape(samples, height, width).transpose(1, 2, 0) if planar else values
        values = values.reshape(height, width, samples)
    values = values.astype(values.dtype.newbyteorder("="))
    # Other things may lie in the bits that are not used.
    unused = allocated - bits
    return values << unused >> unused if unused else values


def _scaled(found: Any, stored: np.ndarray, window: tuple[float, float] | None) -> np.ndarray:
    from pydicom.pixels import apply_modality_lut

    bits, signed = int(found.get("BitsStored", found.BitsAllocated)), stored.dtype.kind == "i"
    ends = np.array([-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] if signed else [0, 2**bits - 1], stored.dtype)
    values = apply_modality_lut(stored, found)
    inverted = str(found.PhotometricInterpretation) == "MONOCHROME1"
    if window is not None:
        centre, width = window
        # DICOM PS3.3, C.11.2.1.2: a window of width 1 is a threshold.
        share = (values.astype(np.float64) - (centre - 0.5)) / max(width - 1, 1e-6) + 0.5
        share = np.clip(share, 0, 1)
        return (1 - share if inverted else share).astype(np.float32)
    if inverted:
        low, high = (float(each) for each in apply_modality_lut(ends, found))
        values = (low + high - values.astype(np.float64)).astype(values.dtype if values.dtype.kind != "f" else float)
    return values
