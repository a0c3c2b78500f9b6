"""Features of pictures in the plane: by PCA, and by t-SNE, coloured by the folders that the pictures lie in."""

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
from rotnet_keras.text import printable

FEWEST = 4
# Pictures that t-SNE takes, for its time grows faster than their number, and components of PCA that it is given.
MOST, COMPONENTS = 2000, 50
PERPLEXITY = 30.0
# Groups are told apart by ten colours, and ten more by the shape of their marks; all that are left share one.
STYLES = [(f"C{number}", marker) for marker in "o^" for number in range(10)]
OTHERS = (GREY, ".")
LONGEST_NAME = 24


def draw_projections(features: Features, file: Path) -> str:
    """Draw PCA of all pictures, and t-SNE of as many as it can take, in one figure.

    Both are of features of length 1, so that what lies close is what `nearest` finds.

    Args:
        file: .png, .svg or .pdf.

    Returns:
        What was drawn, in words.

    Raises:
        DataError: there are fewer than four pictures, or all are the same.
        OSError: the file cannot be written.
    """
    count = len(features.files)
    values = normalize(features.values)
    if count < FEWEST or np.allclose(values, values[:1]):
        raise DataError(f"expected features of {FEWEST} or more pictures that differ, got {count}")
    pca = PCA(min(COMPONENTS, *values.shape), svd_solver="full")
    components = pca.fit_transform(values)
    drawn = np.sort(np.random.default_rng(0).permutation(count)[:MOST])
    perplexity = min(PERPLEXITY, (len(drawn) - 1) / 3)
    # Its threads wait for each other so often that beside a training they take a multiple of one's time.
    with threadpool_limits(1, "openmp"):
        placed = TSNE(perplexity=perplexity, random_state=0).fit_transform(components[drawn])
    part = f"{count:,}" if len(drawn) == count else f"{len(drawn):,} of the {count:,}"
    shares = [f"{share:.0%} of the variance".replace("%", " %") for share in pca.explained_variance_ratio_[:2]]
    groups = groups_of(features.files)
    with plt.rc_context({**STYLE, "axes.grid": False}):
        figure, (left, right) = plt.subplots(1, 2, figsize=(12, 6.4), layout="constrained")
        _scatter(left, components, groups, np.arange(count))
        _scatter(right, placed, groups, drawn)
        left.set(title=f"PCA of {count:,} pictures", xlabel=shares[0], ylabel=shares[-1])
        right.set(title=f"t-SNE of {part} pictures, perplexity {perplexity:.3g}", xticks=[], yticks=[])
        right.set_xlabel("near is alike; how far groups lie apart means little")
        if len(groups) > 1:
            marks = [Line2D([], [], color=c, marker=m, linestyle="") for c, m in [*STYLES, OTHERS][: len(groups)]]
            figure.legend(marks, [_label(name) for name in groups], loc="outside lower center", ncols=6)
        written = BytesIO()
        figure.savefig(written, format=file.suffix[1:].lower())
        plt.close(figure)
    write_atomically(file, written.getvalue())
    coloured = f", coloured by {len(groups)} folders" if len(groups) > 1 else ""
    return f"PCA of {count:,} pictures, t-SNE of {part}{coloured}"


def groups_of(files: Sequence[str]) -> dict[str, np.ndarray]:
    """Rows of the files in each folder, by its name; those beyond what can be told apart are one group, the last.

    With `train` and `test` above them, folders of the same name are one.
    """
    folders = np.array([Path(file).absolute().parent.name for file in files])
    names = [name for name, _ in Counter(folders.tolist()).most_common()]
    alone = names if len(names) <= len(STYLES) else names[: len(STYLES)]
    groups = {name: np.flatnonzero(folders == name) for name in sorted(alone)}
    if rest := names[len(alone) :]:
        groups[f"{len(rest):,} other folders"] = np.flatnonzero(np.isin(folders, rest))
    return groups


def _scatter(axis: Axes, places: np.ndarray, groups: Mapping[str, np.ndarray], drawn: np.ndarray) -> None:
    """Draw pictures as points.

    Args:
        places: (M, 2 or more).
        drawn: (M,) rows of the pictures.
    """
    size = float(np.clip(20_000 / len(drawn), 8, 60))
    for (colour, marker), rows in zip([*STYLES, OTHERS], groups.values(), strict=False):
        x, y = places[np.isin(drawn, rows), :2].T
        axis.scatter(x, y, s=size, c=[colour], marker=marker, linewidths=0, alpha=0.75)


def _label(name: str) -> str:
    """A folder's name as a legend takes it: neither mathematics nor, with an underscore first, left out."""
    name = printable(name)
    name = name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"
    return " " + name.replace("$", r"\$")
