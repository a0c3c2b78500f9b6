"""The bits and the channels of image files, as a sample of them has them."""

from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path

from rotnet_keras.data.decoding import Header, UnreadableImage, highest_value, read_header
from rotnet_keras.data.listing.file_list import ImageFiles
from rotnet_keras.data.listing.sources import ListedSource
from rotnet_keras.data.values.ranges import PERCENTILES
from rotnet_keras.errors import DataError
from rotnet_keras.text import first_few

# Files of each split whose channels and bits are looked at before a run starts.
SAMPLE = 200
# Bits of files whose values are scaled by their own range in a folder of 8-bit images.
DEEP_BITS = 16
# 16-bit files whose values need no more bits than this hold data of 12 or 14 bits.
FEW_BITS = 14


def sampled_values(source: ListedSource) -> tuple[int, bool]:
    """Return the channels of the files of a sample, and whether most of them have more than 8 bits.

    Raises:
        DataError: they have different numbers of channels, and not only grey and colours.
    """
    return channels_and_depth([header for header, _ in sampled_headers([source.splits["train"]])], source.root)


def channels_and_depth(headers: Sequence[Header], root: Path) -> tuple[int, bool]:
    """Return the channels of files with these headers, and whether most of them have more than 8 bits.

    Raises:
        DataError: they have different numbers of channels, and not only grey and colours.
    """
    deep = 2 * sum(header.deep for header in headers) > len(headers)
    found = Counter(header.channels for header in headers if header.deep == deep)
    if set(found) <= {1, 3}:
        return max(found, default=1), deep
    if len(found) > 1:
        counts = first_few([f"{number} of {channels}" for channels, number in sorted(found.items())])
        raise DataError(
            f"data.name: the images in {root} have different numbers of channels; of a sample: {counts}. Put each kind "
            "into a folder of its own"
        )
    return next(iter(found)), deep


def sampled_headers(groups: Iterable[ImageFiles | Sequence[Path]]) -> list[tuple[Header, Path | BytesIO]]:
    """Return the header and the path, or the bytes, of each file of a sample of each group that can be read."""
    found: list[tuple[Header, Path | BytesIO]] = []
    for files in groups:
        for i in range(0, len(files), max(1, len(files) // SAMPLE)):
            with suppress(UnreadableImage):
                content = files[i] if isinstance(files, Sequence) else files.content(i)
                found.append((read_header(content), content))
    return found


def values_sentence(headers: Sequence[Header], deep: bool) -> str:
    """Say what the values of the files of a sample are, and what is done to them."""
    kinds = Counter(
        f"{header.bits} bits" + ("" if header.unsigned else " (signed, floating-point or rescaled)")
        for header in sorted(headers, key=lambda header: header.bits)
    )
    said = [" and ".join(kinds)]
    if any(header.deep for header in headers):
        said.append(
            f"kept as they are; the model scales them from the {PERCENTILES[0]:g}th to the {PERCENTILES[1]:g}th "
            "percentile of the training images"
            if deep
            else "16 are scaled by 255 / 65,535, as most images have 8"
        )
    if deep and not all(header.deep for header in headers):
        said.append(
            f"{sum(not header.deep for header in headers)} of a sample of {len(headers)} have 8 and are skipped"
        )
    done = Counter(header.note for header in headers if header.note)
    said += [f"{number} of a sample of {len(headers)} are {note}" for note, number in done.items()]
    return "; ".join(filter(None, said))


def check_depth(found: Sequence[tuple[Header, Path | BytesIO]], what: str, otherwise: str) -> None:
    """Check the values of image files that are scaled to 8 bits.

    Args:
        found: headers of the files, and their paths or bytes.
        what: whose values they are, for the error.
        otherwise: what to do instead of multiplying them, for the error.

    Raises:
        DataError: 16-bit files use so few of their values that they would become nearly black.
    """
    highest = 0
    for header, file in found:
        if header.unsigned and header.bits == DEEP_BITS:
            with suppress(UnreadableImage):
                highest = max(highest, highest_value(file))
    if highest and highest.bit_length() <= FEW_BITS:
        raise DataError(
            f"{what} go up to {highest:,} of 65,535, so they would become 0 to {highest // 257} of 255. Multiply them "
            f"by {65535 // (2 ** highest.bit_length() - 1)}, {otherwise}"
        )
