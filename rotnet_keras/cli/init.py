"""The command init: inspect images of one's own, and write a recipe that fits them."""

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rotnet_keras.cli.options import (
    PATH,
    argument,
    command,
    counted_names,
    echo,
    echo_json,
    echo_table,
    find_model,
    json_option,
    option,
    require_parent_folder,
    runs_dir_option,
    show_progress,
)
from rotnet_keras.errors import DataError, RecipeError
from rotnet_keras.files import write_atomically

if TYPE_CHECKING:
    from rotnet_keras.config.schema import BackboneSource
    from rotnet_keras.data.audit import ImageAudit


# Images with sides in this ratio lose much to a central square.
OBLONG = 1.6


@command(
    examples=(
        "rotnet-keras init photos",
        "rotnet-keras run photos.toml",
        "rotnet-keras init photos --from airbench4_photos",
    )
)
@argument("images", "IMAGES", "A folder of images, or an .npz file of arrays.")
@option("--output", metavar="FILE", type=PATH, help="Recipe file to write; named after the images by default.")
@option(
    "--minutes",
    metavar="MINUTES",
    type=click.FloatRange(1, 1e6),
    default=60,
    help="How long training may take on this machine.",
)
@option(
    "--from",
    "model",
    metavar="MODEL",
    help="Go on from the weights of this pretrained model, run or .keras file, instead of from scratch.",
)
@runs_dir_option
@json_option
def init(images: str, output: Path | None, minutes: float, model: str | None, runs_dir: Path, as_json: bool) -> None:
    """Inspect your images and write a recipe for them.

    Lists sizes, classes, duplicates and unreadable files, times a few training steps, and chooses backbone, image size,
    batch size and number of epochs.
    """
    from rotnet_keras.data.audit import audit_images

    stem = re.sub(r"[^\w.+-]+", "-", Path(images).expanduser().absolute().stem).strip(".+-") or "images"
    file = output or Path(f"{stem}.toml")
    if file.exists():
        raise RecipeError(f"{file} exists already: move it away, or choose another name with --output FILE")
    require_parent_folder(file)
    source = _source(model, runs_dir) if model else None
    try:
        images.encode()
    except UnicodeEncodeError:
        raise DataError(
            "The name of the folder is not valid UTF-8, so no recipe can hold it: rename the folder, or link to it"
        ) from None
    found = audit_images(images, show_progress)
    if not as_json:
        from rotnet_keras.planning.costs import SAMPLED_ABOVE

        echo_table(["", ""], _audit_rows(found))
        many = sum(found.images.values()) > SAMPLED_ABOVE
        takes = "their headers are read before, which takes minutes" if many else "this takes half a minute"
        echo(f"Timing a few training steps; {takes}.")
    from rotnet_keras.planning.proposal import propose_recipe

    proposal = propose_recipe(found, file, minutes, source, runs_dir)
    write_atomically(file, proposal.text.encode())
    if as_json:
        proposed = {"epochs": proposal.epochs, "advice": proposal.advice, "pretrained": proposal.pretrained}
        echo_json({**found.json_values(), "recipe": str(file), **proposed})
        return
    length = f"{proposal.epochs} epochs in batches of {proposal.batch} images"
    echo(f"Wrote {file}: {length}. Start it: rotnet-keras run {file}")
    if proposal.advice:
        echo(proposal.advice)
    if proposal.pretrained:
        echo(
            f"The pretrained model {proposal.pretrained} takes such images. To go on from its weights: "
            f"rotnet-keras init {shlex.quote(images)} --from {proposal.pretrained}"
        )
    echo("For a short trial, add train.epochs=2.")
    echo("The report of the run says whether rotation is a sensible task for these images.")


def _source(model: str, runs_dir: Path) -> "BackboneSource":
    """Where a backbone to go on from is, as a recipe says it."""
    from rotnet_keras.config.schema import BackboneSource

    if isinstance(found := find_model(model, runs_dir), Path):
        return BackboneSource(file=str(found.absolute()))
    return BackboneSource(run=model if model == found.name else str(found.path.absolute()))


def _audit_rows(found: "ImageAudit") -> list[list[str]]:
    """What was found, in rows of two cells."""
    median = f", half of them up to {found.short_sides[1]}" if " " in found.side_range else ""
    sides = f"{found.side_range} pixels{median}"
    said = found.understood
    rows = [["layout", said["layout"]]] if "layout" in said else []
    rows += [
        ["images", _counts({"training" if name == "train" else name: n for name, n in found.images.items()})],
        ["files" if found.decoded else "types", _counts(found.types)],
        ["short side", sides + ("" if found.square else "; the central square is used")],
        *_rectangle_hint(found.aspect),
        ["channels", {1: "1, grey", 3: "3, colour"}.get(found.channels, str(found.channels))],
        ["values", said.get("values", "")],
        ["classes", _classes(found.classes) if found.classes else said.get("classes", "none")],
        ["left out", said.get("left out", "nothing")],
    ]
    if found.decoded:
        rows += [
            ["rotated by EXIF", f"{found.exif_rotated:,}" + (", shown upright" if found.exif_rotated else "")],
            ["duplicates", counted_names([" = ".join(group) for group in found.duplicates], "groups of equal files")],
        ]
        if found.in_several_splits:
            count = f"{found.in_several_splits:,} of them in several splits"
            rows.append(["", f"{count}: accuracies on the test split are too high"])
        rows.append([
            "unreadable",
            counted_names([f"{name} ({reason})" for name, reason in found.unreadable], "files, skipped"),
        ])  # fmt: skip
        if found.decoded < sum(found.images.values()):
            rows.append(["", f"{found.decoded:,} files were decoded in full; of the others, only the header was read"])
    return rows


def _rectangle_hint(aspect: float) -> list[list[str]]:
    """A row that says how wide or tall images are seen whole; none for others."""
    if 1 / OBLONG < aspect < OBLONG:
        return []
    ratio = f"{aspect:g} times as wide as high" if aspect > 1 else f"{1 / aspect:.3g} times as high as wide"
    return [
        ["", f"half of them are {ratio} or more: if they can only lie upside down, data.size = [height, width] with"],
        ["", "rotation.angles = [0, 180] sees more of them than a square"],
    ]


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())


def _classes(classes: dict[str, int]) -> str:
    fewest, most = min(classes.values()), max(classes.values())
    return f"{len(classes):,}, with {fewest:,}" + (f" to {most:,} images" if most > fewest else " images each")
