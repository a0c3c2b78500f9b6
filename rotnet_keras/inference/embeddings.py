"""Embeddings of image files: computed with a backbone, and kept in a file."""

import base64
import json
import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, get_args

import numpy as np

from rotnet_keras.config.probes import Averaging
from rotnet_keras.errors import DataError
from rotnet_keras.files import digest, open_file, replacing
from rotnet_keras.host import check_unpacked
from rotnet_keras.inference.loading import (
    ANY_SIDE,
    ImageBatch,
    ImageLoader,
    Progress,
    check_any_readable,
    image_loader,
    load_batches,
)
from rotnet_keras.inference.partial_results import PartialResults
from rotnet_keras.runs.exports.backbone_file import VALUES, default_tap, maker_of

if TYPE_CHECKING:
    import pyarrow

# Formats that features are written in.
SUFFIXES = (".npz", ".parquet")
# Rows of a Parquet file that are in memory a second time.
ROW_GROUP = 10_000


@dataclass(frozen=True)
class Features:
    """Features of images, read from one layer of a backbone.

    Attributes:
        backbone: absolute path of the .keras file.
        tap: name of the layer; its feature map is averaged over height and width.
        files: the N image files, as they were named.
        values: (N, D) float32.
        paths: their absolute paths; by default those of `files` from the present folder.
        side: that images are resized to, in pixels, for a backbone that takes any size; else None.
        digest: of the backbone's file, see `files.digest`; empty for features of earlier versions.
        average: what each image's features are averaged over, see `models.averaging.averaged`.
        written: when the file that they were read from was written, in nanoseconds since 1970; None if from no file.
    """

    backbone: str
    tap: str
    files: list[str]
    values: np.ndarray
    paths: list[str] = field(default_factory=list)
    side: int | None = None
    digest: str = ""
    average: Averaging = "none"
    written: int | None = None

    def __post_init__(self) -> None:
        """Complete the paths."""
        if not self.paths:
            object.__setattr__(self, "paths", [str(Path(file).absolute()) for file in self.files])

    def save(self, file: Path) -> None:
        """Write the features as .npz (`features`, `files`, `paths`, `backbone`, `tap`) or .parquet.

        The columns of .parquet are `file`, `path`, `feature_0` and so on.

        Raises:
            OSError: the file cannot be written; no partial file remains.
        """
        with replacing(file) as temporary:
            if file.suffix.lower() == ".npz":
                files, paths = np.array(self.files, dtype=np.str_), np.array(self.paths, dtype=np.str_)
                side = {} if self.side is None else {"side": np.array(self.side)}
                about: dict[str, Any] = {"backbone": np.array(self.backbone), "tap": np.array(self.tap), **side}
                about |= {"digest": np.array(self.digest), "average": np.array(self.average)}
                np.savez(temporary, features=self.values, files=files, paths=paths, **about)
            else:
                self._write_parquet(temporary)

    def _write_parquet(self, target: BinaryIO) -> None:
        from pyarrow import parquet, table

        about = {"backbone": self.backbone, "tap": self.tap, "side": self.side, "digest": self.digest}
        metadata = {"rotnet_keras": json.dumps(about | {"average": self.average})}
        names, places = (
            [name.encode("utf-8", "replace").decode() for name in given] for given in (self.files, self.paths)
        )
        writer = None
        for start in range(0, max(1, len(names)), ROW_GROUP):
            part = slice(start, start + ROW_GROUP)
            columns = {f"feature_{number}": column[part] for number, column in enumerate(self.values.T)}
            rows = table({"file": names[part], "path": places[part], **columns}).replace_schema_metadata(metadata)
            writer = writer or parquet.ParquetWriter(target, rows.schema)
            writer.write_table(rows)
        assert writer
        writer.close()


def load_features(file: Path) -> Features:
    """Read a file that `Features.save` wrote.

    Raises:
        DataError: the file is missing, damaged, or holds something else, it unpacks to far more than its size
            justifies, or a feature is no finite number.
    """
    if not file.exists():
        raise DataError(f"no file {file.absolute()}")
    if file.suffix.lower() not in SUFFIXES:
        raise DataError(f"{file}: expected a file of features, which ends in {' or '.join(SUFFIXES)}: see embed")
    try:
        written = file.stat().st_mtime_ns
        found = _read_npz(file) if file.suffix.lower() == ".npz" else _read_parquet(file)
        count = len(found.values) if found.values.ndim == 2 else None
        if count != len(found.files) or count != len(found.paths) or found.values.dtype.kind != "f":
            raise ValueError(f"{len(found.files):,} files, and features of shape {found.values.shape}")
    except DataError:
        raise
    except Exception as error:  # zip, zlib, Arrow, key and value errors.
        raise DataError(f"{file}: not a file that `rotnet-keras embed` wrote: {error}") from None
    wrong = int((~np.isfinite(found.values).all(axis=1)).sum())
    if wrong:
        raise DataError(
            f"{file}: the features of {wrong:,} images are not all finite: embed them again with a backbone that is "
            "sound"
        )
    return replace(found, written=written)


def _read_npz(file: Path) -> Features:
    with open_file(file) as opened, zipfile.ZipFile(opened) as archive:
        check_unpacked(str(file), file.stat().st_size, sum(each.file_size for each in archive.infolist()))
    with open_file(file) as opened, np.load(opened, allow_pickle=False) as arrays:
        files = [str(name) for name in arrays["files"]]
        # Files of earlier versions have no paths.
        paths = [str(path) for path in arrays["paths"]] if "paths" in arrays else []
        side = int(arrays["side"]) if "side" in arrays else None
        made = str(arrays["digest"]) if "digest" in arrays else ""
        average = _averaging(str(arrays["average"]) if "average" in arrays else "none")
        backbone, tap = str(arrays["backbone"]), str(arrays["tap"])
        return Features(backbone, tap, files, arrays["features"], paths, side, made, average)


def _read_parquet(file: Path) -> Features:
    rows = read_table(file)
    about = json.loads(rows.schema.metadata[b"rotnet_keras"])
    names = rows.column_names
    values = np.stack([rows[name].to_numpy() for name in names if name.startswith("feature_")], axis=1)
    paths = rows["path"].to_pylist() if "path" in names else []
    side, made, files = about.get("side"), str(about.get("digest", "")), rows["file"].to_pylist()
    average = _averaging(about.get("average", "none"))
    return Features(about["backbone"], about["tap"], files, values, paths, side, made, average)


def read_table(file: Path, columns: list[str] | None = None) -> "pyarrow.Table":
    """Read a Parquet file, a part at a time, as long as it unpacks to no more than its size justifies.

    Args:
        file: the file.
        columns: the names of those to read; None for all.

    Returns:
        The rows; columns of words are dictionaries, so that a word that is there often takes memory once.

    Raises:
        DataError: it unpacks to more.
        OSError: it cannot be opened, or is damaged.
        pyarrow.ArrowException: it is damaged, or lacks a column.
    """
    from pyarrow import ArrowInvalid, Table, parquet, types

    with open_file(file) as opened:
        packed = os.fstat(opened.fileno()).st_size
        read = [each for each in parquet.read_schema(opened) if columns is None or each.name in columns]
        words = [each.name for each in read if types.is_string(each.type) or types.is_large_string(each.type)]
        if lacking := sorted(set(columns or ()) - {each.name for each in read}):
            raise ArrowInvalid(f"no column {lacking[0]}")
        known = (types.is_primitive, types.is_string, types.is_large_string, types.is_dictionary, types.is_null)
        if other := [each.name for each in read if not any(is_one(each.type) for is_one in known)]:
            raise ArrowInvalid(f"column {other[0]!r:.80} holds neither numbers nor words")
        source = parquet.ParquetFile(opened, read_dictionary=words)
        about = source.metadata
        # What the file states of itself: bytes before compression, and values, most of which take four bytes.
        stated = sum(about.row_group(number).total_byte_size for number in range(about.num_row_groups))
        check_unpacked(str(file), packed, max(stated, 4 * about.num_rows * len(read)))
        parts, unpacked = [], 0
        for part in source.iter_batches(ROW_GROUP, columns=columns):
            unpacked += sum(_unpacked_bytes(column) for column in part.columns)
            check_unpacked(str(file), packed, unpacked)
            parts.append(part)
        return Table.from_batches(parts, parts[0].schema if parts else source.schema_arrow)


def _unpacked_bytes(column: "pyarrow.Array") -> int:
    """Return the bytes of the values of a column, with each word as often as it is there."""
    from pyarrow import compute, types

    if not types.is_dictionary(column.type):
        return int(column.nbytes)
    lengths = compute.binary_length(column.dictionary)
    return int(compute.sum(lengths.take(column.indices)).as_py() or 0)


def _averaging(text: str) -> Averaging:
    for known in get_args(Averaging):
        if text == known:
            return known  # type: ignore[no-any-return]
    raise ValueError(f"averaged over {text!r:.40}, which this version does not know")


def embed(
    backbone_file: Path,
    tap: str | None,
    files: Sequence[Path],
    progress: Progress = lambda what, done, total: None,
    side: int | None = None,
    average: Averaging = "none",
) -> tuple[Features, list[tuple[Path, str]]]:
    """Compute the features of image files with a backbone. Loads TensorFlow.

    Args:
        backbone_file: a .keras file. In a run folder, the run's recipe says how images are resized and cropped.
        tap: name of the layer to read; for None the backbone's default, see `runs.exports.backbone_file.choose_tap`.
        files: images of any size.
        progress: called after each batch.
        side: that images are resized to, in pixels, for a backbone that takes any size; 224 for None.
        average: what the features of an image are averaged over, see `models.averaging.averaged`.

    Returns:
        The features of the files that can be read, and the other files with the reason.

    Raises:
        DataError: the file is no backbone, the layer does not exist, or none of the images can be read.

    Example:
        ```python
        from pathlib import Path

        from rotnet_keras.inference.embeddings import embed
        from rotnet_keras.inference.similarity import find_similar

        photos = sorted(Path("photos").glob("*.jpg"))
        features, unreadable = embed(Path("runs/my_run/export/backbone.keras"), None, photos)
        features.values.shape  # (N, D)
        (matches,) = find_similar(features, [photos[0]], 5)
        [(match.file, match.similarity) for match in matches]
        ```
    """
    backbone, tap, loader = _loaded(backbone_file, tap, side)
    names, values, unreadable = pooled_features(backbone, tap, loader, files, progress, average)
    check_any_readable(names, unreadable)
    made = digest(backbone_file)
    found = Features(str(backbone_file.absolute()), tap, names, values, side=side, digest=made, average=average)
    return found, unreadable


def embed_to(
    target: Path,
    backbone_file: Path,
    tap: str | None,
    files: Sequence[Path],
    progress: Progress = lambda what, done, total: None,
    side: int | None = None,
    average: Averaging = "none",
    say: Callable[[str], None] = lambda text: None,
) -> tuple[Features, list[tuple[Path, str]]]:
    """Compute the features of image files as `embed` does, and write them. A call that was killed can be repeated.

    Args:
        target: the .npz or .parquet file to write; what is computed so far lies beside it until the end.
        backbone_file: as of `embed`, like the arguments that are not named here.
        say: called with a sentence for the user.

    Raises:
        DataError: as of `embed`, or an image has changed since its features were computed.
        RecipeError: what is computed so far is of another backbone or of other options.
        OSError: the file cannot be written; no partial file remains.
    """
    backbone, tap, loader = _loaded(backbone_file, tap, side)
    made = digest(backbone_file)
    about = {"command": "embed", "model": made, "tap": tap, "average": average, "size": side}
    with PartialResults(target, about) as kept:
        rest = kept.remaining(files)
        if kept.done:
            say(f"Going on with {kept.path}: {len(files) - len(rest):,} of {len(files):,} images are done.")
        try:
            for batch, values in _feature_batches(backbone, tap, loader, rest, progress, average):
                failed = [{"file": str(file), "error": reason} for file, reason in batch.unreadable]
                rows = zip(batch.files, values, strict=True)
                kept.add([*failed, *({"file": str(file), "vector": _packed(row)} for file, row in rows)])
        except KeyboardInterrupt:
            say(f"Stopped. The same command goes on: its results so far are in {kept.path}.")
            raise
        names, vectors, unreadable = _kept_features(kept)
        if not names:
            kept.remove()
        check_any_readable(names, unreadable)
        found = Features(str(backbone_file.absolute()), tap, names, vectors, side=side, digest=made, average=average)
        found.save(target)
        kept.remove()
    return found, unreadable


def _loaded(backbone_file: Path, tap: str | None, side: int | None) -> tuple[Any, str, ImageLoader]:
    """Load a backbone; return it with the layer that is read and the loader of its images."""
    from rotnet_keras.models.export import load_backbone

    backbone = load_backbone(backbone_file)
    tap = tap or default_tap(backbone_file, [layer.name for layer in backbone.layers])
    return backbone, tap, loader_for(backbone_file, backbone, side)


def _packed(vector: np.ndarray) -> str:
    return base64.b64encode(vector.astype(np.float32).tobytes()).decode()


def _kept_features(kept: PartialResults) -> tuple[list[str], np.ndarray, list[tuple[Path, str]]]:
    """Return the names and the features of the images that can be read, and the other files with the reason."""
    names: list[str] = []
    vectors, unreadable = bytearray(), []
    for record in kept.records():
        if "error" in record:
            unreadable.append((Path(record["file"]), record["error"]))
        else:
            names.append(record["file"])
            vectors += base64.b64decode(record["vector"])
    length = len(vectors) // 4 // max(1, len(names))
    return names, np.frombuffer(vectors, np.float32).reshape(len(names), length), unreadable


def loader_for(backbone_file: Path, backbone: Any, side: int | None = None) -> ImageLoader:
    """The loader for the images of a backbone: as in its run where the file lies in a run folder.

    Args:
        backbone_file: the backbone's file.
        backbone: the model in it.
        side: that images are resized to for a model that takes any size; 224 for None.
    """
    from rotnet_keras.config.loading import load_recipe

    maker = maker_of(backbone_file)
    height, width, channels = backbone.input_shape[1:]
    recipe = load_recipe(str(maker.recipe)) if maker else None
    shape = (height, width) if height and width else side or ANY_SIDE
    return image_loader(recipe, shape, channels, backbone.input.name == VALUES)


def pooled_features(
    backbone: Any,
    tap: str,
    loader: ImageLoader,
    files: Sequence[Path],
    progress: Progress,
    average: Averaging = "none",
) -> tuple[list[str], np.ndarray, list[tuple[Path, str]]]:
    """The features of a tap, averaged over height and width, and over views of the image.

    Returns:
        The names of the N files that can be read, their features (N, D), and the other files with the reason.

    Raises:
        DataError: the backbone has no such layer.
    """
    names: list[str] = []
    unreadable: list[tuple[Path, str]] = []
    parts = []
    for batch, values in _feature_batches(backbone, tap, loader, files, progress, average):
        unreadable += batch.unreadable
        names += map(str, batch.files)
        parts.append(values)
    return names, np.concatenate(parts) if parts else np.zeros((0, 0), np.float32), unreadable


def _feature_batches(
    backbone: Any, tap: str, loader: ImageLoader, files: Sequence[Path], progress: Progress, average: Averaging
) -> Iterator[tuple[ImageBatch, np.ndarray]]:
    """Yield each batch of files with the features (N, D) float32 of those that can be read."""
    from rotnet_keras.engine import keras, tf
    from rotnet_keras.models.averaging import averaged
    from rotnet_keras.models.backbones.registry import layer_outputs, with_input_shape

    if average != "none":
        backbone = with_input_shape(backbone, (*loader.shape, loader.channels))
    output = layer_outputs(backbone, [tap])[tap]
    extractor = averaged(keras.Model(backbone.input, output), average)
    spatial_axes = list(range(1, len(output.shape) - 1))
    compute = tf.function(lambda pixels: tf.reduce_mean(extractor(pixels, training=False), spatial_axes))
    for batch in load_batches(loader, files, progress):
        values = np.zeros((0, output.shape[-1]), np.float32)
        if batch.files:
            values = np.asarray(compute(tf.constant(np.stack(batch.images), tf.float32)))
        yield batch, values
