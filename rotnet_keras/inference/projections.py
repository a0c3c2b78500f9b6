"""Projections of features to the plane, by PCA and t-SNE, coloured by the folders of the images."""

from collections import Counter
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.preprocessing import normalize
from threadpoolctl import threadpool_limits

from rotnet_keras.errors import DataError
from rotnet_keras.files import write_atomically
from rotnet_keras.inference.embeddings import Features
from rotnet_keras.reports.figures import GREY, STYLE
from rotnet_keras.text import percent, printable

# Images that a projection needs.
FEWEST = 4
# Images that t-SNE draws at most, since its time grows faster than their number, and PCA components that it is given.
MOST, COMPONENTS = 2000, 50
PERPLEXITY = 30.0
# Ten colours with two markers distinguish twenty folders; all others share one style.
STYLES = [(f"C{number}", marker) for marker in "o^" for number in range(10)]
OTHERS = (GREY, ".")
LONGEST_NAME = 24


def draw_projections(features: Features, file: Path) -> str:
    """Draw a figure with PCA of all images beside t-SNE of at most `MOST` of them.

    Both work on features scaled to length 1, so that distances agree with the cosine similarity of `nearest`.

    Args:
        features: of four or more images.
        file: to write, .png, .svg or .pdf.

    Returns:
        A phrase that says what was drawn.

    Raises:
        DataError: there are fewer than four images, or all have the same features.
        OSError: the file cannot be written.
    """
    count = len(features.files)
    values = normalize(features.values)
    if count < FEWEST or np.allclose(values, values[:1]):
        raise DataError(f"expected features of {FEWEST} or more images that differ, got {count}")
    pca = PCA(min(COMPONENTS, *values.shape), svd_solver="full")
    components = pca.fit_transform(values)
    drawn = np.sort(np.random.default_rng(0).permutation(count)[:MOST])
    perplexity = min(PERPLEXITY, (len(drawn) - 1) / 3)
    # Beside a training its threads wait for each other and take several times as long as a single one.
    with threadpool_limits(1, "openmp"):
        projected = TSNE(perplexity=perplexity, random_state=0).fit_transform(components[drawn])
    part = f"{count:,}" if len(drawn) == count else f"{len(drawn):,} of the {count:,}"
    shares = [f"{percent(share, 0)} of the variance" for share in pca.explained_variance_ratio_[:2]]
    groups = group_by_folder(features.files)
    with plt.rc_context({**STYLE, "axes.grid": False}):
        figure, (left, right) = plt.subplots(1, 2, figsize=(12, 6.4), layout="constrained")
        _scatter(left, components, groups, np.arange(count))
        _scatter(right, projected, groups, drawn)
        left.set(title=f"PCA of {count:,} images", xlabel=shares[0], ylabel=shares[-1])
        right.set(title=f"t-SNE of {part} images, perplexity {perplexity:.3g}", xticks=[], yticks=[])
        right.set_xlabel("close points are similar; distances between groups mean little")
        if len(groups) > 1:
            marks = [Line2D([], [], color=c, marker=m, linestyle="") for c, m in [*STYLES, OTHERS][: len(groups)]]
            figure.legend(marks, [_label(name) for name in groups], loc="outside lower center", ncols=6)
        written = BytesIO()
        figure.savefig(written, format=file.suffix[1:].lower())
        plt.close(figure)
    write_atomically(file, written.getvalue())
    coloured = f", coloured by {len(groups)} folders" if len(groups) > 1 else ""
    return f"PCA of {count:,} images, t-SNE of {part}{coloured}"


def group_by_folder(files: Sequence[str]) -> dict[str, np.ndarray]:
    """The rows of the files in each folder, by the folder's name.

    Folders of the same name are one group, such as those of a class below `train` and `test`. Beyond twenty names the
    smallest folders are one group, the last.
    """
    folders = np.array([Path(file).absolute().parent.name for file in files])
    names = [name for name, _ in Counter(folders.tolist()).most_common()]
    kept = names if len(names) <= len(STYLES) else names[: len(STYLES)]
    groups = {name: np.flatnonzero(folders == name) for name in sorted(kept)}
    if rest := names[len(kept) :]:
        groups[f"{len(rest):,} other folders"] = np.flatnonzero(np.isin(folders, rest))
    return groups


def _scatter(axis: Axes, points: np.ndarray, groups: Mapping[str, np.ndarray], drawn: np.ndarray) -> None:
    """Draw a point for each image, in the style of its group.

    Args:
        axis: to draw on.
        points: (M, 2 or more) coordinates.
        groups: rows of the images in each group.
        drawn: (M,) rows of the images that the points belong to.
    """
    size = float(np.clip(20_000 / len(drawn), 8, 60))
    for (colour, marker), rows in zip([*STYLES, OTHERS], groups.values(), strict=False):
        x, y = points[np.isin(drawn, rows), :2].T
        axis.scatter(x, y, s=size, c=[colour], marker=marker, linewidths=0, alpha=0.75)


def _label(name: str) -> str:
    """A folder's name for a legend, which would read $ as mathematics and skip a name that starts with _."""
    name = printable(name)
    name = name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"
    return " " + name.replace("$", r"\$")
