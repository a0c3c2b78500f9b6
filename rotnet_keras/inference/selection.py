"""Which images to label next: rules that cover a collection with few images, on features scaled to length 1."""

import csv
import io
import json
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rotnet_keras.errors import DataError
from rotnet_keras.files import MAX_LIST_BYTES, read_file, write_atomically
from rotnet_keras.inference.embeddings import Features, read_table
from rotnet_keras.inference.few_labels import open_table, read_labelled_files
from rotnet_keras.text import first_few

# Neighbours that the density around an image is estimated from.
NEIGHBOURS = 20
# Clusters at most, and images from which on they are found on small batches.
MOST_CLUSTERS, MINI_BATCHES = 500, 20_000
# Images of a cluster that density is estimated from, since its time grows with their square.
MOST_COMPARED = 5_000
# The columns of a table of predictions that are read.
FILE, CONFIDENCE, ERROR = "file", "probability_1", "error"


@dataclass(frozen=True)
class Chosen:
    """Images to label next.

    Attributes:
        rows: of the features, the most useful first.
        labelled: how many images were labelled already.
        free: how many were not.
    """

    rows: list[int]
    labelled: int
    free: int


def choose_images(
    features: Features,
    count: int,
    labelled: Path | None = None,
    predictions: Path | None = None,
    seed: int = 0,
    notify: Callable[[str], None] = lambda note: None,
) -> Chosen:
    """Choose the images whose labels would help most: typical ones, spread over the whole collection.

    Args:
        features: of all images, labelled or not.
        count: how many to choose.
        labelled: a list or folder of labelled images, see `read_labelled_files`.
        predictions: a table that `rotnet-keras predict` wrote; where a classifier doubts, images are chosen first.
        seed: of the clusters.
        notify: called with a sentence about labelled images without features.

    Raises:
        DataError: a list cannot be read or does not fit the features, or fewer images are free.

    Example:
        ```python
        from pathlib import Path

        from rotnet_keras.inference.embeddings import load_features
        from rotnet_keras.inference.selection import choose_images

        features = load_features(Path("features.npz"))
        chosen = choose_images(features, 50)
        [features.files[row] for row in chosen.rows]
        ```
    """
    if not np.isfinite(features.values).all():
        raise DataError("the features are not all finite: embed the images again with a backbone that is sound")
    place = {os.path.realpath(path): row for row, path in enumerate(features.paths)}
    taken: list[int] = []
    if labelled:
        pairs = read_labelled_files(labelled, notify)
        found = [place.get(os.path.realpath(path)) for path, _ in pairs]
        taken = sorted({row for row in found if row is not None})
        missing = [str(path) for (path, _), row in zip(pairs, found, strict=True) if row is None]
        if not taken:
            raise DataError(f"{labelled}: none of its images has features, for example {missing[0]}")
        if missing:
            notify(f"{len(missing):,} labelled images have no features and are left out: {first_few(missing)}")
    doubt = _doubt(predictions, features, place, set(taken)) if predictions else None
    free = len(features.files) - len(taken)
    if count > free:
        raise DataError(f"--count: expected at most {free:,}, the images without a label, got {count:,}")
    return Chosen(typical(normalised(features.values), count, taken, seed, doubt), len(taken), free)


def write_selection(target: Path, features: Features, chosen: Chosen) -> None:
    """Write the chosen images as a list with the columns file,label, the labels empty.

    Paths are relative to the list's folder where they lie below it, so that the list can be read as labels once its
    second column is filled in.

    Raises:
        OSError: the file cannot be written; nothing is left.
    """
    folder = target.absolute().parent
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["file", "label"])
    for row in chosen.rows:
        path = Path(features.paths[row])
        writer.writerow([path.relative_to(folder) if path.is_relative_to(folder) else path, ""])
    write_atomically(target, text.getvalue().encode("utf-8", "surrogateescape"))


def _doubt(source: Path, features: Features, place: dict[str, int], taken: set[int]) -> np.ndarray:
    """Return one less the probability of each image's first class: (N,), 1 where it cannot be read, 0 where labelled.

    Raises:
        DataError: the table cannot be read, or lacks images.
    """
    named = {name: row for row, name in enumerate(features.files)}
    doubt = np.full(len(features.files), np.nan)
    doubt[list(taken)] = 0
    for where, row in _predictions(source):
        name = str(row.get(FILE))
        real = (os.path.realpath(name), os.path.realpath(source.parent / name))
        number = named.get(name, place.get(real[0], place.get(real[1])))
        if number is None or number in taken:
            continue
        if row.get(ERROR):
            doubt[number] = 1
            continue
        try:
            confidence = float(row[CONFIDENCE])
        except (KeyError, TypeError, ValueError):
            confidence = -1.0
        if not 0 <= confidence <= 1:
            raise DataError(f"{where}: {CONFIDENCE}: expected a number from 0 to 1, got {row.get(CONFIDENCE)!r}")
        doubt[number] = 1 - confidence
    lacking = [features.files[number] for number in np.flatnonzero(np.isnan(doubt))]
    if lacking:
        raise DataError(f"{source}: has no prediction for {len(lacking):,} of the images: {first_few(lacking)}")
    return doubt


def _predictions(source: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield where it stands and the cells of each row of a table that `predict` wrote.

    Raises:
        DataError: the file is something else.
    """
    columns: list[str] | None = None
    if source.suffix.lower() == ".parquet":
        from pyarrow import ArrowException

        try:
            rows = read_table(source, [FILE, CONFIDENCE, ERROR]).to_pylist()
        except (ArrowException, OSError) as error:
            raise DataError(f"{source}: not a table that `rotnet-keras predict` wrote: {error}") from None
        yield from ((f"{source}, row {number}", row) for number, row in enumerate(rows, 1))
    elif source.suffix.lower() == ".jsonl":
        try:
            for number, line in enumerate(read_file(source, MAX_LIST_BYTES).decode().splitlines(), 1):
                row = json.loads(line)
                if not isinstance(row, dict) or FILE not in row:
                    raise ValueError(f"line {number} is no prediction")
                yield f"{source}, line {number}", row
        except (OSError, ValueError, RecursionError) as error:
            raise DataError(f"{source}: not a table that `rotnet-keras predict` wrote: {error}") from None
    else:
        for where, cells in _rows(source):
            if columns is None:
                columns = cells
                if not {FILE, CONFIDENCE} <= set(columns):
                    raise DataError(
                        f"{where}: expected the columns {FILE} and {CONFIDENCE}, as `rotnet-keras predict` writes "
                        f"them; found {first_few(columns)}"
                    )
            elif cells:
                if len(cells) != len(columns):
                    raise DataError(f"{where}: expected {len(columns)} cells, as in the first line; found {len(cells)}")
                yield where, dict(zip(columns, cells, strict=True))
        if columns is None:
            raise DataError(f"{source}: expected the columns {FILE} and {CONFIDENCE}; the file is empty")


def _rows(source: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield where it stands and the cells of each row of a list.

    Raises:
        DataError: it cannot be read.
    """
    reader = open_table(source)
    try:
        for cells in reader:
            yield f"{source}, line {reader.line_num}", cells
    except csv.Error as error:
        raise DataError(f"{source}, line {reader.line_num}: cannot be read as CSV: {error}") from None


def normalised(values: np.ndarray) -> np.ndarray:
    """Scale features (N, D) to length 1, so that distances agree with cosine similarity; zeros stay zeros."""
    values = np.asarray(values, np.float32)
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return values / np.maximum(length, np.finfo(np.float32).tiny)


def plus_plus(
    values: np.ndarray, count: int, taken: Sequence[int], seed: int, weights: np.ndarray | None = None
) -> list[int]:
    """Draw images as k-means++ draws its centres: with the square of their distance to the nearest one so far.

    Args:
        values: (N, D) of length 1.
        count: how many to draw.
        taken: rows that are labelled already.
        seed: of the draws.
        weights: (N,) factors of the probabilities; None for equal ones.
    """
    rng = np.random.default_rng(seed)
    factors = np.ones(len(values)) if weights is None else np.asarray(weights, np.float64)
    distance = _distance_to(values, taken)
    chosen: list[int] = []
    free = np.ones(len(values), bool)
    free[list(taken)] = False
    for _ in range(count):
        chances = np.where(free, factors * np.minimum(distance, 4.0), 0)
        # Where only copies of chosen images are left, all of them are as good.
        chances = chances if chances.sum() > 0 else free.astype(float)
        row = int(rng.choice(len(values), p=chances / chances.sum()))
        chosen.append(row)
        free[row] = False
        distance = np.minimum(distance, _distance_to(values, [row]))
    return chosen


def k_centre(values: np.ndarray, count: int, taken: Sequence[int], weights: np.ndarray | None = None) -> list[int]:
    """Take the image that is farthest from those taken so far, again and again; the first is the most central.

    Args:
        values: (N, D) of length 1.
        count: how many to take.
        taken: rows that are labelled already.
        weights: (N,) factors of the squared distances; None for equal ones.
    """
    factors = np.ones(len(values)) if weights is None else np.asarray(weights, np.float64)
    chosen: list[int] = []
    if not taken:
        chosen = [int(np.argmax(factors * (values @ values.mean(axis=0))))]
    distance = _distance_to(values, [*taken, *chosen])
    free = np.ones(len(values), bool)
    free[[*taken, *chosen]] = False
    while len(chosen) < count:
        row = int(np.argmax(np.where(free, factors * distance, -1)))
        chosen.append(row)
        free[row] = False
        distance = np.minimum(distance, _distance_to(values, [row]))
    return chosen[:count]


def typical(
    values: np.ndarray, count: int, taken: Sequence[int], seed: int, weights: np.ndarray | None = None
) -> list[int]:
    """Take the most typical image of each cluster, the largest cluster without a label first (TypiClust).

    With weights, such as the doubt of a classifier, the cluster with the largest sum of them comes first.

    The features are split by k-means into as many clusters as there will be labels. The typical image is the one whose
    nearest neighbours in its cluster are nearest (Hacohen et al., 2022, "Active learning on a budget").

    Args:
        values: (N, D) of length 1.
        count: how many to take.
        taken: rows that are labelled already.
        seed: of the clusters.
        weights: (N,) positive numbers; None for equal ones.
    """
    factors = np.ones(len(values)) if weights is None else np.asarray(weights, np.float64)
    cluster = _clusters(values, min(len(taken) + count, MOST_CLUSTERS, len(values)), seed)
    members = {int(each): np.flatnonzero(cluster == each) for each in np.unique(cluster)}
    labelled = dict.fromkeys(members, 0)
    for row in taken:
        labelled[int(cluster[row])] += 1
    free = np.ones(len(values), bool)
    free[list(taken)] = False
    density = np.zeros(len(values))
    for rows in members.values():
        density[rows] = _density(values[rows])
    chosen: list[int] = []
    while len(chosen) < count:
        # The cluster with the fewest labels, of these the largest.
        open_ones = [each for each, rows in members.items() if free[rows].any()]
        each = min(open_ones, key=lambda number: (labelled[number], -factors[members[number]].sum()))
        rows = members[each][free[members[each]]]
        row = int(rows[np.argmax(density[rows])])
        chosen.append(row)
        free[row] = False
        labelled[each] += 1
    return chosen


def _distance_to(values: np.ndarray, rows: Sequence[int]) -> np.ndarray:
    """Squared distance of each image to the nearest of some: (N,), infinite where there are none."""
    if not len(rows):
        return np.full(len(values), np.inf)
    nearest = np.full(len(values), -np.inf)
    for row in rows:
        nearest = np.maximum(nearest, values @ values[row])
    return np.maximum(2 - 2 * nearest, 0)


def _clusters(values: np.ndarray, count: int, seed: int) -> np.ndarray:
    from sklearn.cluster import KMeans, MiniBatchKMeans
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    kind = MiniBatchKMeans if len(values) > MINI_BATCHES else KMeans
    # Of images that are all alike, fewer clusters are found, which is warned of.
    # Beside a training its threads wait for each other and take several times as long as a single one.
    with threadpool_limits(1, "openmp"), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        labels: np.ndarray = kind(count, n_init=1, random_state=seed).fit_predict(values)
    return labels


def _density(values: np.ndarray) -> np.ndarray:
    """One over the mean distance of each image to its nearest neighbours: (N,)."""
    from sklearn.neighbors import NearestNeighbors

    if len(values) == 1:
        return np.ones(1)
    compared = values[:: -(-len(values) // MOST_COMPARED)]
    count = min(NEIGHBOURS + 1, len(compared))
    distances, _ = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(compared).kneighbors(values)
    density: np.ndarray = 1 / (distances[:, 1:].mean(axis=1) + 1e-6)
    return density
