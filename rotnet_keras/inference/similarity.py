"""Images that are similar to others, by the cosine between their features."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rotnet_keras.errors import DataError
from rotnet_keras.files import digest
from rotnet_keras.inference.embeddings import Features, embed


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
        queries: image files. Features of files that are not in `features.files`, or that were modified after these
            were written, are computed, which loads TensorFlow.
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

    Those of an image that was modified after `features` were written are computed.

    Returns:
        (M, D), in the order of the queries.

    Raises:
        DataError: an image cannot be read, or the backbone is not the one that made the features.
    """
    rows = {os.path.realpath(path): row for row, path in enumerate(features.paths)}
    new = [query for query in queries if os.path.realpath(query) not in rows or _is_newer(query, features)]
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


def _is_newer(image: Path, features: Features) -> bool:
    """Return whether an image was modified after features were written; False where it is gone."""
    try:
        return features.written is not None and image.stat().st_mtime_ns > features.written
    except OSError:
        return False
