"""Embeddings of image files: computed with a backbone, kept in a file, and searched for similar images."""

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, get_args

import numpy as np

from rotnet_keras.config.probes import Averaging
from rotnet_keras.errors import DataError
from rotnet_keras.files import digest, open_file, write_atomically
from rotnet_keras.inference.loading import (
    ANY_SIDE,
    ImageLoader,
    Progress,
    check_any_readable,
    image_loader,
    load_batches,
)
from rotnet_keras.runs.exports.backbone_file import VALUES, default_tap, maker_of

# Formats that features are written in.
SUFFIXES = (".npz", ".parquet")


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
    """

    backbone: str
    tap: str
    files: list[str]
    values: np.ndarray
    paths: list[str] = field(default_factory=list)
    side: int | None = None
    digest: str = ""
    average: Averaging = "none"

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
        written = BytesIO()
        if file.suffix == ".npz":
            files, paths = np.array(self.files, dtype=np.str_), np.array(self.paths, dtype=np.str_)
            side = {} if self.side is None else {"side": np.array(self.side)}
            about: dict[str, Any] = {"backbone": np.array(self.backbone), "tap": np.array(self.tap), **side}
            about |= {"digest": np.array(self.digest), "average": np.array(self.average)}
            np.savez(written, features=self.values, files=files, paths=paths, **about)
        else:
            from pyarrow import parquet, table

            columns = {f"feature_{number}": self.values[:, number] for number in range(self.values.shape[1])}
            values = {"backbone": self.backbone, "tap": self.tap, "side": self.side, "digest": self.digest}
            values["average"] = self.average
            names, places = (
                [name.encode("utf-8", "replace").decode() for name in given] for given in (self.files, self.paths)
            )
            rows = table({"file": names, "path": places, **columns}).replace_schema_metadata(
                {"rotnet_keras": json.dumps(values)}
            )
            parquet.write_table(rows, written)
        write_atomically(file, written.getvalue())


@dataclass(frozen=True)
class Match:
    """An image that a search found.

    Attributes:
        file: the image, as it was named when its features were computed.
        similarity: cosine of its features and the query's, -1 to 1, rounded to four digits.
        path: its absolute path.
    """

    file: str
    similarity: float
    path: str


def load_features(file: Path) -> Features:
    """Read a file that `Features.save` wrote.

    Raises:
        DataError: the file is missing, damaged, or holds something else.
    """
    try:
        if file.suffix == ".npz":
            with open_file(file) as opened, np.load(opened, allow_pickle=False) as arrays:
                files = [str(name) for name in arrays["files"]]
                # Files of earlier versions have no paths.
                paths = [str(path) for path in arrays["paths"]] if "paths" in arrays else []
                side = int(arrays["side"]) if "side" in arrays else None
                made = str(arrays["digest"]) if "digest" in arrays else ""
                average = _averaging(str(arrays["average"]) if "average" in arrays else "none")
                backbone, tap = str(arrays["backbone"]), str(arrays["tap"])
                return Features(backbone, tap, files, arrays["features"], paths, side, made, average)
        from pyarrow import parquet

        with open_file(file) as opened:
            rows = parquet.read_table(opened)
        about = json.loads(rows.schema.metadata[b"rotnet_keras"])
        names = rows.column_names
        values = np.stack([rows[name].to_numpy() for name in names if name.startswith("feature_")], axis=1)
        paths = rows["path"].to_pylist() if "path" in names else []
        side, made, files = about.get("side"), str(about.get("digest", "")), rows["file"].to_pylist()
        average = _averaging(about.get("average", "none"))
        return Features(about["backbone"], about["tap"], files, values, paths, side, made, average)
    except Exception as error:  # zip, zlib, Arrow, key and value errors.
        raise DataError(f"{file}: not a file that `rotnet-keras embed` wrote: {error}") from None


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

        from rotnet_keras.inference.embeddings import embed, find_similar

        photos = sorted(Path("photos").glob("*.jpg"))
        features, unreadable = embed(Path("runs/my_run/export/backbone.keras"), None, photos)
        features.values.shape  # (N, D)
        (matches,) = find_similar(features, [photos[0]], 5)
        [(match.file, match.similarity) for match in matches]
        ```
    """
    from rotnet_keras.models.export import load_backbone

    backbone = load_backbone(backbone_file)
    tap = tap or default_tap(backbone_file, [layer.name for layer in backbone.layers])
    loader = loader_for(backbone_file, backbone, side)
    names, values, unreadable = pooled_features(backbone, tap, loader, files, progress, average)
    check_any_readable(names, unreadable)
    made = digest(backbone_file)
    found = Features(str(backbone_file.absolute()), tap, names, values, side=side, digest=made, average=average)
    return found, unreadable


def nearest(features: Features, queries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The nearest neighbours of some vectors by cosine similarity.

    Args:
        features: to search in, N images.
        queries: (M, D).
        count: how many neighbours of each; N at most are returned.

    Returns:
        rows: (M, count) indices into `features.files`, the nearest first.
        similarity: (M, count) cosines, -1 to 1.
    """
    from sklearn.neighbors import NearestNeighbors

    search = NearestNeighbors(n_neighbors=min(count, len(features.files)), metric="cosine").fit(features.values)
    distances, rows = search.kneighbors(queries)
    return rows, 1 - distances


def find_similar(features: Features, queries: Sequence[Path], count: int) -> list[list[Match]]:
    """The images most similar to each query image, without the query itself.

    Args:
        features: to search in.
        queries: image files. Features of files that are not in `features.files` are computed, which loads
            TensorFlow.
        count: matches of each query, at most.

    Returns:
        The matches of each query, the most similar first.

    Raises:
        DataError: a query image cannot be read.
    """
    real = [os.path.realpath(path) for path in features.paths]
    # Besides the matches, the search finds the query itself, by each path that it is listed by.
    rows, similarity = nearest(features, query_features(features, queries), count + max(Counter(real).values()))
    return [
        [
            Match(features.files[row], round(float(cosine), 4), features.paths[row])
            for row, cosine in zip(found, cosines, strict=True)
            if real[row] != os.path.realpath(query)
        ][:count]
        for query, found, cosines in zip(queries, rows, similarity, strict=True)
    ]


def query_features(features: Features, queries: Sequence[Path]) -> np.ndarray:
    """The features of query images, looked up in `features` or computed with the same backbone.

    Returns:
        (M, D), in the order of the queries.

    Raises:
        DataError: an image cannot be read, or the backbone is not the one that made the features.
    """
    rows = {os.path.realpath(path): row for row, path in enumerate(features.paths)}
    new = [query for query in queries if os.path.realpath(query) not in rows]
    computed: dict[str, np.ndarray] = {}
    if new:
        file = Path(features.backbone)
        if features.digest and file.is_file() and digest(file) != features.digest:
            raise DataError(
                f"{file}: has changed since the features were computed, and new images would be compared with those of "
                "another model: run rotnet-keras embed again"
            )
        side, average = features.side, features.average
        found, unreadable = embed(Path(features.backbone), features.tap, new, side=side, average=average)
        if unreadable:
            raise DataError(f"{unreadable[0][0]}: {unreadable[0][1]}")
        computed = dict(zip(found.files, found.values, strict=True))
    values = [computed[str(q)] if str(q) in computed else features.values[rows[os.path.realpath(q)]] for q in queries]
    return np.stack(values)


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
    from rotnet_keras.engine import keras, tf
    from rotnet_keras.models.averaging import averaged
    from rotnet_keras.models.backbones.registry import layer_outputs, with_input_shape

    if average != "none":
        backbone = with_input_shape(backbone, (*loader.shape, loader.channels))
    output = layer_outputs(backbone, [tap])[tap]
    extractor = averaged(keras.Model(backbone.input, output), average)
    spatial_axes = list(range(1, len(output.shape) - 1))
    compute = tf.function(lambda pixels: tf.reduce_mean(extractor(pixels, training=False), spatial_axes))
    names: list[str] = []
    unreadable: list[tuple[Path, str]] = []
    parts = [np.zeros((0, output.shape[-1]), np.float32)]
    for batch in load_batches(loader, files, progress):
        unreadable += batch.unreadable
        names += map(str, batch.files)
        if batch.files:
            parts.append(np.asarray(compute(tf.constant(np.stack(batch.images), tf.float32))))
    return names, np.concatenate(parts), unreadable
