"""The commands about features of image files: probe, embed, alike, plot."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rotnet_keras.cli.options import (
    PATH,
    any_size_option,
    argument,
    average_option,
    command,
    echo,
    echo_json,
    echo_skipped,
    echo_table,
    find_model,
    images_argument,
    json_option,
    option,
    require_file,
    require_parent_folder,
    require_suffix,
    runs_dir_option,
    show_progress,
    shown_option,
    tap_option,
    warn,
)
from rotnet_keras.files import write_atomically
from rotnet_keras.text import percent

if TYPE_CHECKING:
    from rotnet_keras.config.probes import Averaging
    from rotnet_keras.inference.few_labels import Estimate

FEATURE_NAMES = {"pretrained": "pretrained", "random": "random weights", "pixels": "raw pixels"}
PLOT_SUFFIXES = (".png", ".svg", ".pdf")

backbone_argument = argument("model", "MODEL", "A finished run, a pretrained model, or a backbone.keras file.")
features_argument = argument("features", "FEATURES", "A file that `rotnet-keras embed` wrote.", type=PATH)


@command(examples=("rotnet-keras probe airbench4_photos --labels labels.csv",))
@backbone_argument
@option(
    "--labels",
    metavar="LABELS",
    type=PATH,
    required=True,
    help="A CSV file with the columns file,label, or a folder with a subfolder for each class.",
)
@tap_option
@average_option
@any_size_option
@option(
    "--seed", metavar="N", type=click.IntRange(min=0), default=0, help="Seed of the folds and of the random weights."
)
@runs_dir_option
@json_option
def probe(
    model: str,
    labels: Path,
    tap: str | None,
    average: "Averaging",
    size: int | None,
    seed: int,
    runs_dir: Path,
    as_json: bool,
) -> None:
    """Test with a few labels whether pretraining helped.

    Linear classifiers on the features are cross-validated, and compared with two baselines: the features of random
    weights, and raw pixels.
    """
    from rotnet_keras.inference.few_labels import compare_features, compute_features, read_labels
    from rotnet_keras.inference.loading import input_side
    from rotnet_keras.runs.exports.backbone_file import takes_values

    file = _backbone_file(model, runs_dir)
    side = input_side(file, size, warn)
    label_of = dict(read_labels(labels, warn, takes_values(file)))
    features, layer, unreadable = compute_features(file, tap, list(label_of), seed, show_progress, side, average)
    skipped = {path for path, _ in unreadable}
    classes = [label for path, label in label_of.items() if path not in skipped]
    found = compare_features(features, classes, seed)
    if as_json:
        failures = [{"file": str(path), "reason": reason} for path, reason in unreadable]
        echo_json({**asdict(found), "tap": layer, "pictures": len(classes), "failed": failures})
        return
    echo(f"Linear classifiers on {layer}, cross-validated on {len(classes):,} images of {len(set(classes)):,} classes:")
    rows = [
        [
            FEATURE_NAMES[name],
            percent(each.mean, sign=""),
            f"{percent(each.low, sign='')} to {percent(each.high, sign='')}",
        ]
        for name, each in found.accuracies.items()
    ]
    rows.append(["most frequent class", percent(found.chance, sign=""), ""])
    echo_table(["features", "accuracy, %", "95 % interval"], rows)
    echo(_verdict(found.gain["random"], found.gain["pixels"]))
    echo_skipped(unreadable)


@command(examples=("rotnet-keras embed airbench4_photos photos --to features.npz",))
@backbone_argument
@images_argument
@option("--to", metavar="FILE", type=PATH, required=True, help="File to write: .npz or .parquet.")
@tap_option
@average_option
@any_size_option
@runs_dir_option
def embed(
    model: str,
    images: tuple[Path, ...],
    to: Path,
    tap: str | None,
    average: "Averaging",
    size: int | None,
    runs_dir: Path,
) -> None:
    """Write the features of images to a file.

    The file serves `rotnet-keras alike`, `plot` and `select`, and classifiers of your own. A command that was stopped
    goes on where it was when it is repeated: its results so far are in a file beside --to.
    """
    from rotnet_keras.inference.embeddings import SUFFIXES, embed_to
    from rotnet_keras.inference.loading import input_side, list_image_files
    from rotnet_keras.runs.exports.backbone_file import takes_values

    require_suffix(to, SUFFIXES)
    require_parent_folder(to)
    file = _backbone_file(model, runs_dir)
    side = input_side(file, size, warn)
    files = list_image_files(images, warn, takes_values(file))
    features, unreadable = embed_to(to, file, tap, files, show_progress, side, average, echo)
    count, length = features.values.shape
    echo(f"Wrote {to}: {count:,} images with {length:,} features each, from the layer {features.tap}.")
    echo_skipped(unreadable)
    echo(f"Find similar images: rotnet-keras alike {to} IMAGE --page alike.html")
    echo(f"Plot them all: rotnet-keras plot {to} --to features.png")


@command(examples=("rotnet-keras alike features.npz photos/cat.jpg --page alike.html",))
@features_argument
@argument("images", "IMAGE...", "Image files, among the embedded ones or new.", nargs=-1, required=True, type=PATH)
@option("--top", metavar="N", type=click.IntRange(min=1), default=8, help="How many similar images to list for each.")
@option("--page", metavar="FILE", type=PATH, help="Also write an HTML page that shows them.")
@shown_option
@json_option
def alike(
    features: Path, images: tuple[Path, ...], top: int, page: Path | None, shown: list[int] | None, as_json: bool
) -> None:
    """Find the images that look most like given ones.

    Similarity is the cosine between features, from -1 to 1.
    """
    require_parent_folder(page)
    from rotnet_keras.inference.embeddings import load_features
    from rotnet_keras.inference.loading import check_values
    from rotnet_keras.inference.similarity import find_similar
    from rotnet_keras.runs.exports.backbone_file import takes_values

    known = load_features(features)
    check_values(images, warn, takes_values(Path(known.backbone)))
    matches = find_similar(known, images, top)
    if page:
        from rotnet_keras.inference.pages import similar_page

        write_atomically(page, similar_page(images, matches, known.tap, shown).encode())
    if as_json:
        echo_json([
            {"picture": str(image), "alike": [asdict(match) for match in each]}
            for image, each in zip(images, matches, strict=True)
        ])  # fmt: skip
        return
    for image, each in zip(images, matches, strict=True):
        echo(f"Most similar to {image}:")
        echo_table(["similarity", "image"], [[f"{match.similarity:.3f}", match.file] for match in each])
    if page:
        echo(f"Page: {page}")


@command(examples=("rotnet-keras plot features.npz --to features.png",))
@features_argument
@option("--to", metavar="FILE", type=PATH, required=True, help="File to write: .png, .svg or .pdf.")
def plot(features: Path, to: Path) -> None:
    """Plot features in two dimensions, by PCA and t-SNE.

    Each image is a point, coloured by the folder that it lies in.
    """
    require_suffix(to, PLOT_SUFFIXES)
    require_parent_folder(to)
    from rotnet_keras.inference.embeddings import load_features
    from rotnet_keras.inference.projections import draw_projections

    echo(f"Wrote {to}: {draw_projections(load_features(features), to)}.")


def _verdict(over_random: "Estimate", over_pixels: "Estimate") -> str:
    """Whether pretraining helped, in a sentence.

    Args:
        over_random: accuracy of the pretrained features less that of random weights.
        over_pixels: the same less that of raw pixels.
    """
    gain = f"{100 * over_random.mean:+.1f} points ({100 * over_random.low:+.1f} to {100 * over_random.high:+.1f})"
    if over_random.low > 0 and over_pixels.low > 0:
        return f"Pretraining helped: {gain} over random weights. It also beats raw pixels."
    if over_random.low > 0:
        return f"Pretraining helped: {gain} over random weights. It does not clearly beat raw pixels."
    if over_random.high < 0:
        return f"Pretraining did harm: {gain} over random weights."
    return (
        f"These labels do not show whether pretraining helped: {gain} over random weights. "
        "More labelled images may show it."
    )


def _backbone_file(model: str, runs_dir: Path) -> Path:
    found = find_model(model, runs_dir)
    file = found if isinstance(found, Path) else found.backbone
    require_file(file)
    return file
