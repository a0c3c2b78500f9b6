"""The commands from a folder of images to labelled images: duplicates, select, predict."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rotnet_keras.cli.options import (
    PATH,
    any_size_option,
    argument,
    average_option,
    command,
    counted_names,
    echo,
    echo_skipped,
    echo_table,
    find_model,
    images_argument,
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
from rotnet_keras.errors import DataError, RecipeError
from rotnet_keras.files import write_atomically
from rotnet_keras.text import percent

if TYPE_CHECKING:
    from rotnet_keras.config.probes import Averaging
    from rotnet_keras.inference.adaptation import Adaptation
    from rotnet_keras.inference.duplicates import Duplicate
    from rotnet_keras.inference.pages import Section
    from rotnet_keras.inference.prediction import Classifier, Predicted

# Classes that are listed with their counts.
CLASSES_SHOWN = 20
# Groups of duplicates, and files of each, that are printed.
GROUPS_SHOWN = 10

page_option = option("--page", metavar="FILE", type=PATH, help="Also write an HTML page that shows them.")


@command(
    examples=(
        "rotnet-keras duplicates photos --page duplicates.html",
        "rotnet-keras duplicates --between data/train data/test --to leaks.csv",
    )
)
@argument("images", "[IMAGES]...", "Image files, or folders of them.", nargs=-1, type=PATH)
@option(
    "--between",
    metavar="TRAIN TEST",
    nargs=2,
    type=PATH,
    help="Two folders instead of IMAGES: only images of one with a duplicate in the other are listed.",
)
@option("--to", metavar="FILE", type=PATH, default=Path("duplicates.csv"), help="File to write: .csv.")
@option(
    "--model",
    former="--network",
    metavar="MODEL",
    default="airbench4_photos",
    help="A finished run, a pretrained model, or a backbone.keras file, whose features find the candidates.",
)
@tap_option
@page_option
@shown_option
@runs_dir_option
def duplicates(
    images: tuple[Path, ...],
    between: tuple[Path, Path] | None,
    to: Path,
    model: str,
    tap: str | None,
    page: Path | None,
    shown: list[int] | None,
    runs_dir: Path,
) -> None:
    """Find images that are the same but for small changes.

    These are size, encoding, brightness, a small crop, mirroring and rotation by right angles. Files of equal content
    come first. A command that was stopped goes on where it was when it is repeated.
    """
    if bool(images) == bool(between):
        raise RecipeError("expected IMAGES, or two folders with --between TRAIN TEST")
    require_suffix(to, (".csv",))
    require_parent_folder(to, page)
    found = find_model(model, runs_dir)
    file = found if isinstance(found, Path) else found.backbone
    require_file(file)
    from rotnet_keras.inference.loading import list_image_files

    # Values of any range are brought to one brightness and contrast here.
    files, train = list_image_files(images or between or (), warn, deep=True), None
    if between:
        parts = [list_image_files([part], deep=True) for part in between]
        known = set(map(str, files))
        files = [each for part in parts for each in part if str(each) in known]
        train = sum(str(each) in known for each in parts[0])
    from rotnet_keras.inference.duplicates import find_duplicates

    groups, unreadable = find_duplicates(file, tap, files, to, train, show_progress, echo)
    if page:
        from rotnet_keras.inference.pages import MOST, Section, images_page

        rows = [[(each.file, _duplicate_caption(each)) for each in group[:MOST]] for group in groups[:MOST]]
        note = "The most similar first." if len(groups) <= MOST else f"The first {MOST:,} groups."
        section = Section("Groups", note, rows)
        summary = _duplicate_counts(groups, len(files))
        write_atomically(page, images_page("Duplicates", summary, [section], shown).encode())
    for group in groups[:GROUPS_SHOWN]:
        echo_table(["", "", ""], [[_duplicate_caption(each), "", each.file] for each in [*group[:GROUPS_SHOWN]]])
        echo("")
    echo(_duplicate_counts(groups, len(files)))
    echo_skipped(unreadable)
    echo(f"Wrote {to}.")
    if page:
        echo(f"Page: {page}")


def _duplicate_caption(each: "Duplicate") -> str:
    return " ".join(filter(None, [each.part, each.kind or "first", f"{each.similarity:.3f}"]))


def _duplicate_counts(groups: "list[list[Duplicate]]", count: int) -> str:
    """How many groups there are, and of how many images, in a sentence."""
    exact = sum(any(each.kind == "exact" for each in group) for group in groups)
    found = f"{len(groups):,} groups of duplicates with {sum(map(len, groups)):,} images"
    return f"{count:,} images: {found}, {exact:,} groups with equal files."


@command(
    examples=(
        "rotnet-keras select features.npz --count 50 --to labels.csv --page select.html",
        "rotnet-keras select features.npz --count 50 --labelled labels.csv --to new.csv",
    )
)
@argument("features", "FEATURES", "A file that `rotnet-keras embed` wrote.", type=PATH)
@option("--count", metavar="N", type=click.IntRange(min=1), required=True, help="How many images to select.")
@option("--to", metavar="FILE", type=PATH, required=True, help="File to write: .csv, with an empty column for labels.")
@option(
    "--labelled",
    metavar="LABELS",
    type=PATH,
    help="What is labelled already: a CSV file with the columns file,label, or a folder with a subfolder per class.",
)
@option("--predictions", metavar="FILE", type=PATH, help="A table of `rotnet-keras predict`: doubtful images first.")
@option("--seed", metavar="N", type=click.IntRange(min=0), default=0, help="Seed of the clusters.")
@page_option
@shown_option
def select(
    features: Path,
    count: int,
    to: Path,
    labelled: Path | None,
    predictions: Path | None,
    seed: int,
    page: Path | None,
    shown: list[int] | None,
) -> None:
    """Select the images to label next.

    The images are split into as many clusters as there will be labels, and the most typical image of each cluster
    without a label is selected.
    """
    require_suffix(to, (".csv",))
    require_parent_folder(to, page)
    if to.exists():
        raise RecipeError(f"--to: {to} exists already, perhaps with labels: name another file, or remove it")
    from rotnet_keras.inference.embeddings import load_features
    from rotnet_keras.inference.selection import choose_images, write_selection

    known = load_features(features)
    chosen = choose_images(known, count, labelled, predictions, seed, warn)
    write_selection(to, known, chosen)
    if page:
        from rotnet_keras.inference.pages import MOST, Section, images_page

        first = chosen.rows[:MOST]
        note = "The most useful first." if len(first) == count else f"The first {len(first):,}."
        rows = [(known.paths[row], str(number)) for number, row in enumerate(first, 1)]
        summary = f"{count:,} of {chosen.free:,} images without a label."
        section = Section("Selected", note, [rows])
        write_atomically(page, images_page("To label next", summary, [section], shown).encode())
    echo(f"Wrote {to}: {count:,} of {chosen.free:,} images without a label. Fill in its column label.")
    if page:
        echo(f"Page: {page}")


@command(
    examples=(
        "rotnet-keras predict my_run photos --to classes.csv --page classes.html",
        "rotnet-keras predict model.keras photos --classes classes.txt --to out.parquet",
        "rotnet-keras predict my_run foggy_photos --adapt statistics --to classes.csv",
    )
)
@argument("classifier", "CLASSIFIER", "A run that trained a classifier, or a .keras file of a classifier.")
@images_argument
@option("--to", metavar="FILE", type=PATH, required=True, help="File to write: .csv, .parquet or .jsonl.")
@option("--top", metavar="N", type=click.IntRange(min=1), default=1, help="How many classes to write of each image.")
@option(
    "--min-confidence",
    metavar="P",
    type=click.FloatRange(0, 1),
    default=0.0,
    help="Leave images unlabelled whose class is less probable than this.",
)
@option("--classes", metavar="FILE", type=PATH, help="Names of the classes, a line each, for a model without a card.")
@option(
    "--page",
    metavar="FILE",
    type=PATH,
    help="Also write an HTML page with the surest, the most doubtful and the most unusual images.",
)
@shown_option
@average_option
@option(
    "--adapt",
    metavar="WHAT",
    type=click.Choice(["none", "statistics", "rotations"]),
    default="none",
    help="Adapt the classifier to the images first: the statistics of its batch normalisation, or the layers that it "
    "shares with its rotation head; none by default.",
)
@any_size_option
@runs_dir_option
def predict(
    classifier: str,
    images: tuple[Path, ...],
    to: Path,
    top: int,
    min_confidence: float,
    classes: Path | None,
    page: Path | None,
    shown: list[int] | None,
    average: "Averaging",
    adapt: "Adaptation",
    size: int | None,
    runs_dir: Path,
) -> None:
    """Predict the classes of images with a trained classifier.

    Probabilities are calibrated on the validation images of the run, if it had enough of them. --adapt fits the
    classifier, in memory, to images that differ from those of its training, by fog or noise for example. A command
    that was stopped goes on where it was when it is repeated: its results so far are in a file beside --to.
    """
    from rotnet_keras.inference.prediction import SUFFIXES, known_card, read_class_names

    require_suffix(to, SUFFIXES)
    require_parent_folder(to, page)
    file, names = _classifier_file(classifier, runs_dir), read_class_names(classes) if classes else None
    top = min(top, len(known_card(file, names).classes))
    from rotnet_keras.inference.adaptation import adaptation_images, check_adaptable, describe
    from rotnet_keras.inference.loading import list_image_files
    from rotnet_keras.inference.partial_results import PartialResults
    from rotnet_keras.runs.exports.backbone_file import takes_values

    check_adaptable(file, adapt)
    files = list_image_files(images, warn, takes_values(file))
    from rotnet_keras.inference.prediction import (
        load_classifier,
        predict_files,
        rotation_model_file,
        write_predictions,
    )

    model, rotations, said_how = load_classifier(file, names, warn, size, average), None, ""
    if page:
        from rotnet_keras.inference.orientation import load_orientation_model

        found = rotation_model_file(file)
        rotations = load_orientation_model(found) if found else None
        said_how = "" if found else "No rotation model belongs to this classifier: the page shows no unusual images."
    about = {"command": "predict", "model": model.fingerprint, "top": top, "unusual": rotations is not None}
    if average != "none":
        about["average"] = average
    if size is not None or model.model.input_shape[1] is None:
        about["size"] = model.loader.size
    adapted_to = adaptation_images(files)
    about |= describe(adapt, adapted_to)
    with PartialResults(to, about) as kept:
        rest = kept.remaining(files)
        if kept.done:
            echo(f"Going on with {kept.path}: {len(files) - len(rest):,} of {len(files):,} images are done.")
        try:
            if rest and adapt != "none":
                _adapt(model, file, adapt, adapted_to)
            predict_files(model, rest, kept, top, rotations, show_progress)
        except KeyboardInterrupt:
            echo(f"Stopped. The same command goes on: its results so far are in {kept.path}.")
            raise
        result = write_predictions(to, kept, model.classes, top, min_confidence)
        if page:
            from rotnet_keras.inference.pages import images_page

            summary = f"{sum(result.counts.values()):,} images, classified by {file.name}."
            write_atomically(page, images_page("Predictions", summary, _prediction_sections(result), shown).encode())
        kept.remove()
    _echo_predicted(result, to)
    if model.uncalibrated:
        echo(f"Probabilities are not calibrated: {model.uncalibrated}.")
    if said_how:
        echo(said_how)
    if page:
        echo(f"Page: {page}")


def _adapt(model: "Classifier", file: Path, how: "Adaptation", images: list[Path]) -> None:
    """Adapt a classifier in memory, and print to what."""
    from rotnet_keras.inference.adaptation import FEW_IMAGES, adapt

    if how == "statistics" and len(images) < FEW_IMAGES:
        warn(f"--adapt statistics: {len(images):,} images are few to take statistics from, and may do harm")
    if model.temperature != 1:
        warn("the probabilities were calibrated without --adapt, and may be too low or too high with it")
    echo(adapt(model, file, how, images, show_progress))


def _classifier_file(name: str, runs_dir: Path) -> Path:
    """The file of a classifier, by its path or its run.

    Raises:
        DataError: there is none.
    """
    found = find_model(name, runs_dir)
    file = found if isinstance(found, Path) else found.export / "classifier.keras"
    if not isinstance(found, Path) and not file.is_file():
        raise DataError(
            f"{found.name} has no export/classifier.keras: train one with rotnet-keras run finetune "
            f"pretrained.run={shlex.quote(found.name)} data.name=LABELLED"
        )
    require_file(file)
    return file


def _prediction_sections(result: "Predicted") -> "list[Section]":
    from rotnet_keras.inference.pages import Section

    ranked = (
        ("The surest", "The most probable classes.", result.surest, "p"),
        ("The most doubtful", "The least probable of the first classes.", result.doubtful, "p"),
        ("The most unusual", "Their rotations are predicted worst.", result.unusual, "score"),
    )
    return [
        Section(title, note, [[(file, f"{name}, {what} {value:.2f}") for value, file, name in images]])
        for title, note, images, what in ranked
        if images
    ]


def _echo_predicted(result: "Predicted", to: Path) -> None:
    """Print how many images each class has, which files cannot be read, and where the table is."""
    count = sum(result.counts.values())
    ranked = [(name, number) for name, number in result.counts.most_common() if name is not None]
    rows = [[str(name), f"{number:,}", percent(number / count)] for name, number in ranked[:CLASSES_SHOWN]]
    if len(ranked) > CLASSES_SHOWN:
        others = sum(number for _, number in ranked[CLASSES_SHOWN:])
        rows.append([f"{len(ranked) - CLASSES_SHOWN:,} other classes", f"{others:,}", percent(others / count)])
    if result.counts[None]:
        rows.append(["unlabelled", f"{result.counts[None]:,}", percent(result.counts[None] / count)])
    if rows:
        echo_table(["class", "images", ""], rows)
    if result.unreadable:
        names = [f"{file} ({reason})" for file, reason in result.examples]
        more = result.unreadable - len(names)
        echo(f"Unreadable: {counted_names([*names, *[''] * more], 'files')}; all are in {to}, column error.")
    echo(f"Wrote {to}: {count:,} images.")
