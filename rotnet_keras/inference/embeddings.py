"""Features of picture files: computed, kept in a file, and compared."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from rotnet_keras.errors import DataError
from rotnet_keras.files import write_atomically
from rotnet_keras.inference.loading import Progress, Viewer, batches, viewer

SUFFIXES = (".npz", ".parquet")


@dataclass(frozen=True)
class Features:
    """What a layer of a backbone knows of pictures.

    Attributes:
        backbone: the .keras file.
        tap: the layer, its map averaged over all places.
        files: N.
        values: (N, D) float32.
    """

    backbone: str
    tap: str
    files: list[str]
    values: np.ndarray

    def save(self, file: Path) -> None:
        """Write them as .npz (`features`, `files`, `backbone`, `tap`) or .parquet (`file`, `feature_0` ...).

        Raises:
            OSError: the file cannot be written; nothing is left of the attempt.
        """
        written = BytesIO()
        if file.suffix == ".npz":
            files = np.array(self.files, dtype=np.str_)
            np.savez(written, features=self.values, files=files, backbone=self.backbone, tap=self.tap)
        else:
            from pyarrow import parquet, table

            columns = {f"feature_{number}": self.values[:, number] for number in range(self.values.shape[1])}
            about = {"backbone": self.backbone, "tap": self.tap}
            names = [name.encode("utf-8", "replace").decode() for name in self.files]
            rows = table({"file": names, **columns}).replace_schema_metadata({"rotnet_keras": json.dumps(about)})
            parquet.write_table(rows, written)
        write_atomically(file, written.getvalue())


def load_features(file: Path) -> Features:
    """Read what `Features.save` wrote.

    Raises:
        DataError: the file is something else, or damaged.
    """
    try:
        if file.suffix == ".npz":
            with np.load(file, allow_pickle=False) as arrays:
                files = [str(name) for name in arrays["files"]]
                return Features(str(arrays["backbone"]), str(arrays["tap"]), files, arrays["features"])
        from pyarrow import parquet

        rows = parquet.read_table(file)
        about = json.loads(rows.schema.metadata[b"rotnet_keras"])
        values = np.stack([rows[name].to_numpy() for name in rows.column_names[1:]], axis=1)
        return Features(about["backbone"], about["tap"], rows["file"].to_pylist(), values)
    except Exception as error:  # zip, zlib, Arrow, key and value errors.
        raise DataError(f"{file}: no features of rotnet-keras embed: {error}") from None


def nearest(features: Features, queries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The pictures whose features point most nearly the way of others'.

    Args:
        queries: (M, D).

    Returns:
        rows: (M, count) of the features, the nearest first.
        similarity: (M, count) cosines, -1 to 1.
    """
    from sklearn.neighbors import NearestNeighbors

    search = NearestNeighbors(n_neighbors=min(count, len(features.files)), metric="cosine").fit(features.values)
    distances, rows = search.kneighbors(queries)
    return rows, 1 - distances


def rows_of(features: Features, pictures: Sequence[Path]) -> np.ndarray:
    """(M, D): the features of pictures, among these or computed the same way. Loads TensorFlow for others.

    Raises:
        DataError: one cannot be read.
    """
    rows = {Path(name).absolute(): row for row, name in enumerate(features.files)}
    new = [picture for picture in pictures if picture.absolute() not in rows]
    computed: dict[str, np.ndarray] = {}
    if new:
        found, unreadable = embed(Path(features.backbone), features.tap, new)
        if unreadable:
            raise DataError(f"{unreadable[0][0]}: {unreadable[0][1]}")
        computed = dict(zip(found.files, found.values, strict=True))
    values = [computed[str(p)] if str(p) in computed else features.values[rows[p.absolute()]] for p in pictures]
    return np.stack(values)


def embed(
    file: Path, tap: str | None, pictures: Sequence[Path], progress: Progress = lambda what, done, total: None
) -> tuple[Features, list[tuple[Path, str]]]:
    """Show a backbone pictures and read a layer, averaged over all places. Loads TensorFlow.

    Args:
        file: the .keras file of the backbone; in a run folder, the run's recipe says how it is shown pictures.
        tap: the layer; by default the middle one of those made to be read, which knows objects best (paper, Tables 1
            and 5).

    Returns:
        The features of the pictures that can be read; the others, and why.

    Raises:
        DataError: the backbone or the layer is not there, or no picture can be read.
    """
    from rotnet_keras.models.export import load_backbone

    backbone = load_backbone(file)
    tap = tap or middle_tap(backbone)
    names, values, unreadable = averages(backbone, tap, shown_to(file, backbone), pictures, progress)
    if not names:
        raise DataError(f"no picture can be read, for example {unreadable[0][0]}: {unreadable[0][1]}")
    return Features(str(file.absolute()), tap, names, values), unreadable


def middle_tap(backbone: Any) -> str:
    """The layer that knows objects best (paper, Tables 1 and 5): the middle one of those made to be read."""
    from rotnet_keras.models.backbones.registry import taps

    known = taps(backbone)
    return known[(len(known) - 1) // 2] if known else str(backbone.layers[-1].name)


def shown_to(file: Path, backbone: Any) -> Viewer:
    """How a backbone is shown pictures: as its run did where the file lies in a run folder."""
    from rotnet_keras.config.loading import load_recipe

    made_by = file.absolute().parent.parent / "recipe.toml"
    side, _, channels = backbone.input_shape[1:]
    return viewer(load_recipe(str(made_by)) if made_by.is_file() else None, side, channels)


def averages(
    backbone: Any, tap: str, shown: Viewer, pictures: Sequence[Path], progress: Progress
) -> tuple[list[str], np.ndarray, list[tuple[Path, str]]]:
    """Names and features (N, D) of the pictures that can be read; the others, and why.

    Raises:
        DataError: the backbone has no such layer.
    """
    from rotnet_keras.engine import keras, tf
    from rotnet_keras.models.backbones.registry import outputs_of

    output = outputs_of(backbone, [tap])[tap]
    trunk, places = keras.Model(backbone.input, output), list(range(1, len(output.shape) - 1))
    compute = tf.function(lambda pixels: tf.reduce_mean(trunk(pixels, training=False), places))
    names: list[str] = []
    unreadable: list[tuple[Path, str]] = []
    parts = [np.zeros((0, output.shape[-1]), np.float32)]
    for batch in batches(shown, pictures, progress):
        unreadable += batch.unreadable
        names += map(str, batch.files)
        if batch.files:
            parts.append(np.asarray(compute(tf.constant(np.stack(batch.pictures), tf.float32))))
    return names, np.concatenate(parts), unreadable
