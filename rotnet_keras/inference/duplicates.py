"""Images that are the same but for their size, encoding, brightness, a small crop, a mirroring or a rotation.

Files of equal content come first. Of the others, the features of a backbone, averaged over the four rotations of each
image and its mirror image, find the candidates, and the pixels decide.
"""

import base64
import csv
import io
import stat
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rotnet_keras.data.crops import Fit
from rotnet_keras.data.decoding import read_displayed
from rotnet_keras.errors import DataError
from rotnet_keras.files import digest, write_atomically
from rotnet_keras.inference.alignment import SIDE, agreement, placements
from rotnet_keras.inference.loading import ImageLoader, Progress, load_batches
from rotnet_keras.inference.partial_results import PartialResults
from rotnet_keras.runs.exports.backbone_file import VALUES

# Neighbours of each image in the features that its pixels are compared with, and the least cosine of these.
NEIGHBOURS, LEAST_SIMILAR = 10, 0.5
# Agreement of the pixels from which on two images are duplicates. Both were chosen on 125 photos of PASCAL VOC.
AGREEMENT = 0.93
# Dimensions that features are whitened to, and what is added to their scales, as a share of the largest.
DIMENSIONS, SOFTENING = 32, 0.05
# Mean and standard deviation of the brightness that images are brought to.
BRIGHTNESS, CONTRAST = 120.0, 50.0
# Images that are compared at once, and values of the matrix of their similarities, each of which takes some 20 bytes.
ROWS, CELLS = 256, 2**24
# Images whose features are centred at once.
CENTRED = 4096

EXACT, NEAR = "exact", "near"


@dataclass(frozen=True)
class WholeImages(ImageLoader):
    """Reads whole images, stretched to a square, so that a crop of an image is a part of it."""

    def load(self, file: Path) -> np.ndarray:
        """Read one image: (side, side, channels) uint8, as people see it."""
        return read_displayed(file, Fit(*self.shape, "stretch"), self.channels)


@dataclass(frozen=True)
class Duplicate:
    """A file of a group of duplicates.

    Attributes:
        file: as it was named.
        kind: "exact" for a file with the content of the group's first or of another one, else "near"; empty for the
            first of a group.
        similarity: agreement of the pixels with the most similar image of the group, up to 1.
        part: "train" or "test", where two folders are compared; else empty.
    """

    file: str
    kind: str
    similarity: float
    part: str = ""


def equal_files(files: Sequence[Path]) -> list[list[int]]:
    """The files of equal content: rows of groups of two or more, in order. Files that cannot be read are left out."""
    by_size: dict[int, list[int]] = defaultdict(list)
    for row, file in enumerate(files):
        try:
            found = file.stat()
        except OSError:
            continue
        # Opening a pipe would wait for its writer.
        if stat.S_ISREG(found.st_mode):
            by_size[found.st_size].append(row)
    by_content: dict[str, list[int]] = defaultdict(list)
    for rows in by_size.values():
        for row in rows if len(rows) > 1 else []:
            try:
                by_content[digest(files[row])].append(row)
            except OSError:
                continue
    return sorted(rows for rows in by_content.values() if len(rows) > 1)


def describe_files(
    backbone: Any,
    tap: str,
    files: Sequence[Path],
    kept: PartialResults,
    progress: Progress = lambda what, done, total: None,
) -> None:
    """Compute the features and a small grey copy of image files, and append them to the partial results.

    Args:
        backbone: Keras model that takes square images.
        tap: name of its layer.
        files: those without a result yet.
        kept: receives the results.
        progress: called after each batch.

    Raises:
        DataError: the backbone has no such layer, or does not take square images of one size.
    """
    from rotnet_keras.engine import keras, tf
    from rotnet_keras.models.backbones.registry import layer_outputs

    height, width, channels = backbone.input_shape[1:]
    if height is None or height != width or channels not in (1, 3) or backbone.input.name == VALUES:
        what = " with more than 8 bits" if backbone.input.name == VALUES else ""
        raise DataError(
            f"the backbone takes images of {height} x {width} x {channels}{what}: expected one for squares, grey or "
            "RGB, of 8 bits. Files of any kind are compared as people see them: leave --model out, or name such a "
            "model"
        )
    output = layer_outputs(backbone, [tap])[tap]
    extractor, axes = keras.Model(backbone.input, output), list(range(1, len(output.shape) - 1))
    compute = tf.function(
        lambda pixels: tf.reduce_mean(extractor(pixels, training=False), axes),
        input_signature=[tf.TensorSpec((None, height, width, channels), tf.float32)],
    )
    for batch in load_batches(WholeImages(height, height, channels), files, progress):
        records: list[dict[str, Any]] = [{"file": str(file), "error": reason} for file, reason in batch.unreadable]
        if batch.files:
            even = np.stack([_even(image) for image in batch.images])
            views = [np.asarray(compute(np.ascontiguousarray(view))) for view in placements(even)]
            vectors = np.stack(views).mean(axis=0).astype(np.float32)
            for file, image, vector in zip(batch.files, batch.images, vectors, strict=True):
                records.append({"file": str(file), "vector": _packed(vector), "grey": _packed(_small(image))})
        kept.add(records)


def _even(image: np.ndarray) -> np.ndarray:
    """Return an image (S, S, C) float32 of a fixed brightness and contrast."""
    pixels = image.astype(np.float32)
    pixels = (pixels - pixels.mean()) / max(1.0, float(pixels.std())) * CONTRAST + BRIGHTNESS
    return np.clip(pixels, 0, 255)


def _small(image: np.ndarray) -> np.ndarray:
    """Return a grey copy (32, 32) uint8 of an image (S, S, C)."""
    grey = Image.fromarray(image.squeeze() if image.shape[2] == 1 else image).convert("L")
    return np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def _packed(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()


def read_descriptions(kept: PartialResults) -> tuple[dict[str, int], np.ndarray, np.ndarray, list[tuple[str, str]]]:
    """The results of `describe_files`.

    Returns:
        The row of each file that can be read, its features (N, D), its grey copy (N, 32, 32) uint8, and the other files
        with the reason.
    """
    rows: dict[str, int] = {}
    vectors, greys, unreadable = bytearray(), bytearray(), []
    for record in kept.records():
        if "error" in record:
            unreadable.append((record["file"], record["error"]))
        else:
            rows[record["file"]] = len(rows)
            vectors += base64.b64decode(record["vector"])
            greys += base64.b64decode(record["grey"])
    count = max(1, len(rows))
    features = np.frombuffer(vectors, np.float32).reshape(len(rows), len(vectors) // 4 // count)
    return rows, features, np.frombuffer(greys, np.uint8).reshape(-1, SIDE, SIDE), unreadable


def near_pairs(
    vectors: np.ndarray,
    greys: np.ndarray,
    asked: np.ndarray | None = None,
    among: np.ndarray | None = None,
    progress: Progress = lambda what, done, total: None,
    least: float = AGREEMENT,
) -> list[tuple[int, int, float]]:
    """The pairs of images whose pixels agree, of those whose features are near.

    Args:
        vectors: (N, D) features.
        greys: (N, 32, 32).
        asked: rows whose duplicates are searched for; all by default.
        among: rows that are searched; all by default.
        progress: called after each part of the rows.
        least: agreement of the pixels of a pair.

    Returns:
        (row, row, agreement), each pair once.
    """
    every = np.arange(len(vectors))
    asked, among = (every if rows is None else np.asarray(rows) for rows in (asked, among))
    if not len(asked) or not len(among):
        return []
    points = _whitened(vectors)
    # A pair is compared once, whichever of its images finds the other.
    seen: set[int] = set()
    found: list[tuple[int, int, float]] = []
    at_once = max(1, min(ROWS, CELLS // len(among)))
    for start in range(0, len(asked), at_once):
        rows = asked[start : start + at_once]
        similar = points[rows] @ points[among].T
        similar[rows[:, None] == among[None]] = -1
        count = min(NEIGHBOURS, len(among))
        near = np.argpartition(-similar, count - 1, axis=1)[:, :count]
        is_near = np.take_along_axis(similar, near, axis=1) >= LEAST_SIMILAR
        first, second = np.repeat(rows, count).reshape(near.shape)[is_near], among[near][is_near]
        pairs = np.unique(np.minimum(first, second) * len(vectors) + np.maximum(first, second)).tolist()
        new = [pair for pair in pairs if pair not in seen]
        seen.update(new)
        left, right = np.divmod(np.array(new, np.int64), len(vectors))
        values = agreement(greys[left], greys[right])
        alike = np.flatnonzero(values >= least)
        found += zip(left[alike].tolist(), right[alike].tolist(), values[alike].tolist(), strict=True)
        progress("comparing", min(start + at_once, len(asked)), len(asked))
    return found


def _whitened(vectors: np.ndarray) -> np.ndarray:
    """Return features (N, up to 32) of length 1 that vary as much in each direction."""
    mean = vectors.mean(axis=0, dtype=np.float64)
    # A part at a time, since double precision takes more memory than all features.
    parts = [slice(start, start + CENTRED) for start in range(0, len(vectors), CENTRED)]
    values, directions = np.linalg.eigh(sum((vectors[part] - mean).T @ (vectors[part] - mean) for part in parts))
    # In as many directions as there are images, each would be far from all others.
    order = np.argsort(-values)[: max(1, min(DIMENSIONS, len(vectors) // 4))]
    scales = np.sqrt(np.maximum(values[order], 0))
    whitening = directions[:, order] / (scales + SOFTENING * max(scales[0], 1e-12))
    points = np.concatenate([((vectors[part] - mean) @ whitening).astype(np.float32) for part in parts])
    length = np.linalg.norm(points, axis=1, keepdims=True)
    result: np.ndarray = (points / np.maximum(length, 1e-12)).astype(np.float32)
    return result


def group_duplicates(
    files: Sequence[Path],
    exact: Sequence[Sequence[int]],
    near: Sequence[tuple[int, int, float]],
    train: int | None = None,
) -> list[list[Duplicate]]:
    """Join pairs to groups.

    Args:
        files: all files.
        exact: rows of files with equal content.
        near: pairs of rows with their agreement.
        train: how many of the files are of the training part, the first ones; only groups with files of both parts are
            kept then. None where there is one part.

    Returns:
        The groups, those with equal files first, then by their similarity; in each the files in order.
    """
    parent = list(range(len(files)))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    same = {row for rows in exact for row in rows}
    best = dict.fromkeys(same, 1.0)
    links = [(rows[0], row, 1.0) for rows in exact for row in rows[1:]]
    for first, second, value in [*links, *near]:
        parent[root(second)] = root(first)
        for row in (first, second):
            best[row] = max(best.get(row, 0.0), value)
    groups: dict[int, list[int]] = defaultdict(list)
    for row in sorted(best):
        groups[root(row)].append(row)
    kept = [rows for rows in groups.values() if train is None or rows[0] < train <= rows[-1]]
    result = []
    for rows in sorted(kept, key=lambda rows: (-max(best[row] for row in rows), rows)):
        parts = ["" if train is None else "train" if row < train else "test" for row in rows]
        kinds = ["", *(EXACT if row in same else NEAR for row in rows[1:])]
        result.append([
            Duplicate(str(files[row]), kind, round(best[row], 3), part)
            for row, kind, part in zip(rows, kinds, parts, strict=True)
        ])  # fmt: skip
    return result


def write_groups(target: Path, groups: Sequence[Sequence[Duplicate]]) -> None:
    """Write the groups as a table with the columns group, file, kind, similarity and part.

    Raises:
        OSError: the file cannot be written; nothing is left.
    """
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["group", "file", "kind", "similarity", "part"])
    for number, group in enumerate(groups, 1):
        writer.writerows([number, each.file, each.kind, each.similarity, each.part] for each in group)
    write_atomically(target, text.getvalue().encode("utf-8", "surrogateescape"))


def find_duplicates(
    backbone_file: Path,
    tap: str | None,
    files: Sequence[Path],
    target: Path,
    train: int | None = None,
    progress: Progress = lambda what, done, total: None,
    say: Callable[[str], None] = lambda text: None,
) -> tuple[list[list[Duplicate]], list[tuple[str, str]]]:
    """Find the duplicates among files and write their table. Loads TensorFlow.

    Args:
        backbone_file: a .keras file.
        tap: name of the layer to read; None for the backbone's default tap.
        files: the images; with `train`, those of the training part first.
        target: the table to write; what is computed so far lies beside it until the end.
        train: how many of the files are of the training part; pairs across the parts are searched for then.
        progress: called after each batch.
        say: called with a sentence for the user.

    Returns:
        The groups, and the files that cannot be read with the reason.

    Raises:
        DataError: the file is no backbone, or none of the images can be read.
    """
    from rotnet_keras.inference.loading import check_any_readable
    from rotnet_keras.models.export import load_backbone
    from rotnet_keras.runs.exports.backbone_file import default_tap

    exact = equal_files(files)
    repeated = {row for rows in exact for row in rows[1:] if train is None}
    single = [file for row, file in enumerate(files) if row not in repeated]
    backbone = load_backbone(backbone_file)
    tap = tap or default_tap(backbone_file, [layer.name for layer in backbone.layers])
    about = {"command": "duplicates", "model": digest(backbone_file), "tap": tap}
    with PartialResults(target, about) as kept:
        rest = kept.remaining(single)
        if kept.done:
            say(f"Going on with {kept.path}: {len(single) - len(rest):,} of {len(single):,} images are done.")
        try:
            describe_files(backbone, tap, rest, kept, progress)
        except KeyboardInterrupt:
            say(f"Stopped. The same command goes on: its results so far are in {kept.path}.")
            raise
        rows, vectors, greys, unreadable = read_descriptions(kept)
        if not rows:
            kept.remove()
        check_any_readable(list(rows), [(Path(file), reason) for file, reason in unreadable])
        number = {str(file): row for row, file in enumerate(files)}
        place = np.array([number[file] for file in rows])
        asked = among = None
        if train is not None:
            asked, among = np.flatnonzero(place >= train), np.flatnonzero(place < train)
        near = near_pairs(vectors, greys, asked, among, progress)
        near = [(int(place[first]), int(place[second]), value) for first, second, value in near]
        groups = group_duplicates(files, exact, near, train)
        write_groups(target, groups)
        kept.remove()
    return groups, unreadable
