"""The commands about the orientation of image files: upright, measure-upright, anomalies."""

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rotnet_keras.cli.options import (
    PATH,
    argument,
    command,
    csv_option,
    echo,
    echo_json,
    echo_skipped,
    echo_table,
    find_model,
    images_argument,
    json_option,
    option,
    require_parent_folder,
    runs_dir_option,
    show_progress,
    shown_option,
    typed_command,
    warn,
)
from rotnet_keras.errors import DataError, RecipeError
from rotnet_keras.files import write_atomically

if TYPE_CHECKING:
    import numpy as np

    from rotnet_keras.inference.corrections import Correction
    from rotnet_keras.inference.orientation import OrientationModel, Predictions
    from rotnet_keras.runs.folder import RunFolder

MODEL_HELP = "A finished run that learned rotations, a pretrained model, or a rotnet.keras file."
# The pretrained model for photos.
PHOTOS = "airbench4_photos"

model_option = option("--model", former="--network", metavar="MODEL", default=PHOTOS, help=MODEL_HELP)
min_confidence_option = option(
    "--min-confidence",
    metavar="P",
    type=click.FloatRange(0, 1),
    default=0.95,
    help="Leave images alone whose rotation is less probable than this.",
)
prior_option = option(
    "--prior",
    metavar="P",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Share of images that are upright; estimated from the images by default.",
)
spoil_cost_option = option(
    "--spoil-cost",
    metavar="N",
    type=click.FloatRange(0),
    default=10.0,
    help="How many images left not upright one spoiled image outweighs: rotate at odds above N to 1.",
)


@command(
    examples=(
        "rotnet-keras upright photos --page upright.html",
        "rotnet-keras upright photos --write exif",
    )
)
@images_argument
@model_option
@option(
    "--write",
    metavar="HOW",
    help="Rotate the files without loss: exif for JPEG, pixels for PNG and BMP. By default nothing is changed.",
)
@min_confidence_option
@prior_option
@spoil_cost_option
@option("--page", metavar="FILE", type=PATH, help="Also write an HTML page with the images before and after.")
@shown_option
@csv_option
@runs_dir_option
@json_option
def upright(
    images: tuple[Path, ...],
    model: str,
    write: str | None,
    min_confidence: float,
    prior: float | None,
    spoil_cost: float,
    page: Path | None,
    shown: list[int] | None,
    csv: Path | None,
    runs_dir: Path,
    as_json: bool,
) -> None:
    """Find images that are not upright, and rotate them.

    Lists by how many degrees each image has to be rotated clockwise. Files are changed only with --write. Most
    images of an album are upright: a rotation must be as many times as probable as "upright already" as --spoil-cost
    says. Its probability must be --min-confidence at least.
    """
    if write not in (None, "exif", "pixels"):
        raise RecipeError(f"--write: expected exif or pixels, got {write!r}")
    require_parent_folder(page, csv)
    source = find_model(model, runs_dir)
    from rotnet_keras.inference.loading import list_image_files

    files = list_image_files(images, warn, _takes_values(source))
    from rotnet_keras.inference.corrections import find_corrections, summarize
    from rotnet_keras.inference.orientation import predict

    network, temperature, uncalibrated = _calibrated_model(source)
    predictions = predict(network, files, show_progress)
    album = find_corrections(predictions, temperature, min_confidence, prior, spoil_cost)
    corrections = album.images
    if page:
        from rotnet_keras.inference.pages import upright_page

        write_atomically(page, upright_page(corrections, summarize(album), shown).encode())
    needed = [each for each in corrections if each.needed]
    failed = [(str(file), reason) for file, reason in predictions.unreadable]
    if write:
        failed += [(str(each.file), reason) for each in needed if (reason := _rotate_file(each, write))]
    if csv:
        rows = [[str(cell) for cell in each.as_json().values()] for each in corrections]
        write_atomically(csv, _as_csv([["file", "clockwise", "confidence", "sure"], *rows]))
    if as_json:
        failures = [{"file": name, "reason": reason} for name, reason in failed]
        pictures = [each.as_json() for each in corrections]
        about = {"temperature": temperature, "uncalibrated": uncalibrated or None, **album.as_json()}
        echo_json({**about, "pictures": pictures, "failed": failures})
        return
    if needed:
        rows = [[str(each.clockwise), f"{each.confidence:.3f}", str(each.file)] for each in needed]
        echo_table(["clockwise", "confidence", "image"], rows)
    echo(summarize(album))
    echo_skipped(failed)
    if write:
        skipped = {name for name, _ in failed}
        echo(f"Rotated {sum(str(each.file) not in skipped for each in needed):,} files.")
    elif needed:
        echo("No file was changed. To rotate them: --write exif for JPEG, --write pixels for PNG and BMP.")
    if uncalibrated:
        echo(f"Confidences are not calibrated: {uncalibrated}.")
    if page:
        echo(f"Page: {page}")


@command(
    examples=(
        "rotnet-keras measure-upright photos --to measured",
        "rotnet-keras measure-upright photos --to measured --rotated 0.05",
    )
)
@argument(
    "images",
    "IMAGES...",
    "Upright image files, or folders of them, that the model was not trained on.",
    nargs=-1,
    required=True,
    type=PATH,
)
@option(
    "--to",
    metavar="FOLDER",
    type=PATH,
    required=True,
    help="Folder to write upright.md, upright.json and reliability.png into.",
)
@model_option
@option(
    "--rotated",
    metavar="SHARE",
    type=click.FloatRange(0, 1),
    help="Share of images to rotate by 90, 180 or 270 degrees; each by a random right angle, also 0, by default.",
)
@min_confidence_option
@prior_option
@spoil_cost_option
@option("--seed", metavar="N", type=click.IntRange(min=0), default=0, help="Seed of the random rotations.")
@runs_dir_option
@json_option
def measure_upright(
    images: tuple[Path, ...],
    to: Path,
    model: str,
    rotated: float | None,
    min_confidence: float,
    prior: float | None,
    spoil_cost: float,
    seed: int,
    runs_dir: Path,
    as_json: bool,
) -> None:
    """Measure how often `upright` is correct on your images.

    Upright images are rotated at random, and the predictions are compared with the rotations that were applied. The
    output also says how many upright images of such an album `upright --write` would rotate, and how many rotated ones
    it would set upright.
    """
    require_parent_folder(to)
    source = find_model(model, runs_dir)
    from rotnet_keras.inference.loading import list_image_files

    files = list_image_files(images, warn, _takes_values(source))
    from rotnet_keras.inference.orientation_metrics import measure
    from rotnet_keras.runs.zoo import calibration_source

    network, temperature, uncalibrated = _calibrated_model(source)
    found = measure(
        network,
        files,
        temperature,
        min_confidence,
        seed,
        show_progress,
        rotated=rotated,
        prior=prior,
        spoil_cost=spoil_cost,
    )
    found.write(to, typed_command(), uncalibrated, calibration_source(source))
    if as_json:
        echo_json(found.as_json())
        return
    echo_table([f"{found.accuracy.count:,} images", "%", "95 % interval"], found.rows())
    echo_skipped(found.unreadable)
    if uncalibrated:
        echo(f"Confidences are not calibrated: {uncalibrated}.")
    echo(f"Wrote {to / 'upright.md'}, with the plot and the same figures as JSON beside it.")


@command(examples=("rotnet-keras anomalies my_run photos --csv scores.csv",))
@argument("model", "MODEL", MODEL_HELP)
@images_argument
@option(
    "--against",
    metavar="IMAGES",
    type=PATH,
    multiple=True,
    help="Images known to be unusual; shows how well the scores separate them. May be given several times.",
)
@option(
    "--score",
    metavar="SCORE",
    type=click.Choice(["rotations", "classes", "both"]),
    help="What the score comes from: rotations, classes, or both rotations and what the model learned beside them, "
    "which is the default.",
)
@option("--top", metavar="N", type=click.IntRange(min=1), default=20, help="How many of the most unusual to list.")
@csv_option
@runs_dir_option
@json_option
def anomalies(
    model: str,
    images: tuple[Path, ...],
    against: tuple[Path, ...],
    score: str | None,
    top: int,
    csv: Path | None,
    runs_dir: Path,
    as_json: bool,
) -> None:
    """Rank images by how unusual they are.

    The score of an image is high where the model fails to predict its rotations: it is unlike the training images. A
    run that learned classes beside rotations ([auxiliary]) adds how unsure it is of the class; --score classes is one
    minus the highest probability of a class. A run that learned translations (rotation.translation) is also asked which
    way each copy was shifted, which takes several times as long.
    """
    require_parent_folder(csv)
    source = find_model(model, runs_dir)
    values = {} if isinstance(source, Path) else source.recipe_values()
    of_classes = values.get("kind") == "classify"
    of_shifts = values.get("kind") == "pretrain" and bool(values.get("rotation", {}).get("translation"))
    if (score == "classes" and not of_classes) or (score == "both" and not (of_classes or of_shifts)):
        raise DataError(
            f"--score {score}: {model} learned no classes; name a run of a recipe with [auxiliary]"
            + (", or with rotation.translation" if score == "both" else "")
        )
    from rotnet_keras.inference.loading import list_image_files

    listed, unusual = (list_image_files(paths, warn, _takes_values(source)) for paths in (images, against))
    known_unusual = {file.resolve() for file in unusual}
    files = [file for file in listed if file.resolve() not in known_unusual]
    if len(files) < len(listed):
        warn(f"{len(listed) - len(files):,} of IMAGES are also in --against and count as unusual")
    from rotnet_keras.inference.orientation import load_orientation_model, predict

    network = load_orientation_model(source)
    predictions = predict(network, [*files, *unusual], show_progress, shifts=score != "rotations")
    scores = _anomaly_scores(predictions, score or "both")
    known = set(unusual)
    rows = sorted(zip(scores.tolist(), map(str, predictions.files), strict=True), reverse=True)
    auroc = _auroc(scores, [file in known for file in predictions.files]) if unusual else None
    if csv:
        lines = [["file", "score"], *([name, f"{score:.4f}"] for score, name in rows)]
        write_atomically(csv, _as_csv(lines))
    if as_json:
        found = [{"file": name, "score": score} for score, name in rows]
        unreadable = [{"file": str(file), "reason": reason} for file, reason in predictions.unreadable]
        echo_json({"auroc": auroc, "pictures": found, "unreadable": unreadable})
        return
    echo_table(["score", "image"], [[f"{score:.3f}", name] for score, name in rows[:top]])
    if auroc is not None:
        echo(f"AUROC {auroc:.3f}: 1 if each image of --against scores above all others, 0.5 for chance.")
    echo_skipped(predictions.unreadable)


def _calibrated_model(source: "Path | RunFolder") -> "tuple[OrientationModel, float, str]":
    """A model, the temperature that calibrates it, and why there is none; empty where there is one.

    Raises:
        DataError: the model predicts other angles than 0, 90, 180 and 270 degrees, or 0 and 180.
    """
    from rotnet_keras.inference.orientation import HALF_TURN, calibrate_temperature, load_orientation_model
    from rotnet_keras.models.rotation import RIGHT_ANGLES
    from rotnet_keras.runs.zoo import load_card

    model = load_orientation_model(source)
    if model.angles not in (RIGHT_ANGLES, HALF_TURN):
        name = source if isinstance(source, Path) else source.name
        raise DataError(
            f"{name}: expected a model that predicts 0, 90, 180 and 270 degrees, or 0 and 180, got {model.angles}"
        )
    if isinstance(source, Path):
        return model, 1.0, "a .keras file has no validation images; name its run instead"
    if card := load_card(source):
        fitted = card["temperature"]
        return model, fitted or 1.0, "" if fitted else "the model's card has no temperature"
    try:
        return model, calibrate_temperature(source, model), ""
    except DataError as error:
        return model, 1.0, str(error)


def _takes_values(source: "Path | RunFolder") -> bool:
    """Whether a model takes the numbers of files with more than 8 bits as they are."""
    from rotnet_keras.runs.exports.backbone_file import takes_values

    return takes_values(source if isinstance(source, Path) else source.export / "rotnet.keras")


def _rotate_file(correction: "Correction", write: str) -> str:
    """Rotate an image's file; why it could not be, or empty."""
    from rotnet_keras.data.decoding import UnreadableImage
    from rotnet_keras.inference.lossless_rotation import rotate_by_exif, rotate_pixels

    try:
        (rotate_by_exif if write == "exif" else rotate_pixels)(correction.file, -correction.clockwise // 90)
    except (UnreadableImage, OSError) as error:
        return str(error)
    return ""


def _anomaly_scores(predictions: "Predictions", score: str) -> "np.ndarray":
    """The scores (N,) of images, the higher the more unusual; "both" is of whatever the model learned."""
    from rotnet_keras.inference.orientation import anomaly_score, joint_anomaly_score

    if predictions.shifted is not None and score == "both":
        return -predictions.shifted.mean(axis=(1, 2))
    classes = predictions.class_probabilities
    if score == "rotations" or classes is None:
        return anomaly_score(predictions.log_probabilities)
    if score == "classes":
        return 1 - classes.max(axis=1)
    return joint_anomaly_score(predictions.log_probabilities, classes)


def _auroc(scores: "np.ndarray", unusual: list[bool]) -> float:
    """The area under the ROC curve of the scores.

    Raises:
        DataError: the images are all unusual, or none is.
    """
    from sklearn.metrics import roc_auc_score

    if len(set(unusual)) < 2:
        raise DataError("--against: expected readable images there and among IMAGES, and not the same ones")
    return float(roc_auc_score(unusual, scores))


def _as_csv(lines: list[list[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(lines)
    return text.getvalue().encode("utf-8", "surrogateescape")
