"""The bits and the channels of image files, as a sample of them has them."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import numpy as np

from rotnet_keras.data.decoding import Header, UnreadableImage, highest_value, read_header, read_image
from rotnet_keras.data.listing.file_list import ImageFiles
from rotnet_keras.data.listing.sources import ListedSource
from rotnet_keras.data.values.ranges import PERCENTILES, measure_range
from rotnet_keras.errors import DataError
from rotnet_keras.text import first_few, percent

# Files of each split whose channels and bits are looked at before a run starts.
SAMPLE = 200
# Bits of files whose values are scaled by their own range in a folder of 8-bit images.
DEEP_BITS = 16
# 16-bit files whose values need no more bits than this hold data of 12 or 14 bits. Beside a split of brighter files,
# only those of the lower number do: others may be dark.
FEW_BITS, FEW_BITS_OF_SPLIT = 14, 12

# A header, and the path or the bytes of its file.
Found = tuple[Header, Path | BytesIO]

# Files of each split whose values are compared, and the side in pixels that they are resized to for that.
COMPARED, COMPARED_SIDE = 20, 32
# A split is on another scale if more of its values than this share lie further outside the range of the training images
# than that is wide: splits of one instrument differ by less.
MOST_OUTSIDE = 0.1
# So is one whose range is a smaller share of theirs than the first; below the second it is said.
NARROW, DARK = 0.01, 0.125


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


def sampled_headers(groups: Iterable[ImageFiles | Sequence[Path]]) -> list[Found]:
    """Return the header and the path, or the bytes, of each file of a sample of each group that can be read."""
    found: list[Found] = []
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


def check_depth(found: Mapping[str, Sequence[Found]], what: str, otherwise: str) -> None:
    """Check the values of image files that are scaled to 8 bits.

    Args:
        found: headers of the files of each split, or of one group of any name, and their paths or bytes.
        what: whose values they are, for the error.
        otherwise: what to do instead of multiplying them, for the error.

    Raises:
        DataError: 16-bit files, or those of one split, use so few of their values that they would become nearly black.
    """
    of_splits = {split: _highest_value(files) for split, files in found.items()}
    highest = max(of_splits.values(), default=0)
    if highest.bit_length() > FEW_BITS:
        dark = {split: most for split, most in of_splits.items() if 0 < most.bit_length() <= FEW_BITS_OF_SPLIT}
        if not dark:
            return
        split, highest = next(iter(dark.items()))
        what += f" for {split}"
    if highest:
        raise DataError(
            f"{what} go up to {highest:,} of 65,535, so they would become 0 to {highest // 257} of 255. Multiply them "
            f"by {65535 // (2 ** highest.bit_length() - 1)}, {otherwise}"
        )


def _highest_value(files: Sequence[Found]) -> int:
    """Return the highest value of the 16-bit files; 0 without any."""
    highest = 0
    for header, file in files:
        if header.unsigned and header.bits == DEEP_BITS:
            with suppress(UnreadableImage):
                highest = max(highest, highest_value(file))
    return highest


def compare_splits(found: Mapping[str, Sequence[Found]], channels: int, root: Path) -> list[str]:
    """Check that the values of all splits of images with more than 8 bits are on one scale.

    Args:
        found: headers of a sample of the files of each split, and their paths or bytes.
        channels: of the images.
        root: the folder of the data set, for the error.

    Returns:
        A sentence for each split that has a small part of the range of the training images.

    Raises:
        DataError: a split is on another scale than the training images.
    """
    pixels = {split: _small_images(files, channels) for split, files in found.items()} if len(found) > 1 else {}
    pixels = {split: images for split, images in pixels.items() if len(images)}
    train = measure_range([pixels["train"]]) if "train" in pixels else None
    if train is None or not (known := np.greater(train.high, train.low)).any():
        return []
    low, high, span = (np.asarray(each)[known] for each in (train.low, train.high, train.span))
    said = []
    for split, images in pixels.items():
        values = images[..., known]
        own = measure_range([values])
        outside = ((values < low - span) | (values > high + span)).mean()
        share = float(np.max(np.subtract(own.high, own.low) / span))
        if outside > MOST_OUTSIDE or (share < NARROW and values.any()):
            raise DataError(
                f"data.name: the training images in {root} have values from {low.min():g} to {high.max():g}, the "
                f"{split} images from {min(own.low):g} to {max(own.high):g}: save all of them on one scale"
            )
        if share < DARK:
            said.append(f"the {split} images have {percent(share, 0)} of the range of the training images")
    return said


def _small_images(files: Sequence[Found], channels: int) -> np.ndarray:
    """Return some of the images of more than 8 bits, resized: (n, S, S, channels) float32."""
    found = []
    for _, file in files[:: max(1, -(-len(files) // COMPARED))]:
        with suppress(UnreadableImage):
            found.append(read_image(file, COMPARED_SIDE, channels, deep=True))
    return np.stack(found) if found else np.zeros((0, COMPARED_SIDE, COMPARED_SIDE, channels), np.float32)
