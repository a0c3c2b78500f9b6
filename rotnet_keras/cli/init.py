"""A look at one's own images, and a recipe that fits them."""

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rotnet_keras.cli.options import AsJson, check_places, print_rows, some, tell, tell_progress
from rotnet_keras.errors import DataError, RecipeError
from rotnet_keras.files import write_atomically

if TYPE_CHECKING:
    from rotnet_keras.data.audit import Survey


def init(
    images: Annotated[str, typer.Argument(help="A folder of images, or an .npz file of arrays.")],
    output: Annotated[Path | None, typer.Option(help="The recipe to write; called after them by default.")] = None,
    minutes: Annotated[float, typer.Option(min=1, max=1e6, help="How long the training may take here.")] = 60,
    as_json: AsJson = False,
) -> None:
    """Look at images of your own and write a recipe that fits them and this machine."""
    from rotnet_keras.data.audit import survey

    stem = re.sub(r"[^\w.+-]+", "-", Path(images).expanduser().absolute().stem).strip(".+-") or "images"
    file = output or Path(f"{stem}.toml")
    if file.exists():
        raise RecipeError(f"{file} is there already: move it away, or write elsewhere with --output FILE")
    check_places(file)
    try:
        images.encode()
    except UnicodeEncodeError:
        raise DataError("The folder's name is no UTF-8 text, which a recipe is: rename it, or link to it") from None
    found = survey(images, tell_progress)
    if not as_json:
        print_rows(["", ""], _words(found))
        tell("Timing a few steps; this takes half a minute.")
    from rotnet_keras.planning.proposal import propose_recipe

    proposal = propose_recipe(found, file, minutes)
    write_atomically(file, proposal.text.encode())
    if as_json:
        typer.echo(json.dumps({**asdict(found), "recipe": str(file), "epochs": proposal.epochs}, indent=2, default=str))
        return
    length = f"{proposal.epochs} epochs in batches of {proposal.batch} images"
    tell(f"Wrote {file}: {length}. Begin: rotnet-keras run {file}")
    tell("Its report says whether rotation is a sensible task for these images; a trial: add train.epochs=2.")


def _words(found: "Survey") -> list[list[str]]:
    """What there is, in rows of two cells."""
    sides = f"{found.extent} pixels" + (f", half of them up to {found.sides[1]}" if " " in found.extent else "")
    rows = [
        ["images", _counts({"training" if name == "train" else name: n for name, n in found.images.items()})],
        ["files" if found.decoded else "values", _counts(found.kinds)],
        ["short side", sides + ("" if found.square else "; central squares are taken")],
        ["channels", {1: "1, grey", 3: "3, colour"}.get(found.channels, str(found.channels))],
        ["classes", _classes(found.classes)],
    ]
    if found.decoded:
        rows += [
            ["turned by EXIF", f"{found.turned:,}" + (", which is applied" if found.turned else "")],
            ["duplicates", some([" = ".join(group) for group in found.duplicates], "groups of equal files")],
        ]
        if found.shared:
            rows.append(["", f"{found.shared:,} of them in several splits: a test on them tells too much"])
        rows.append(["unreadable", some([f"{name} ({why})" for name, why in found.unreadable], "files, skipped")])
        if found.decoded < sum(found.images.values()):
            rows.append(["", f"damage behind a header was looked for in {found.decoded:,} files"])
    return rows


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())


def _classes(classes: dict[str, int]) -> str:
    if not classes:
        return "none: no folder per class, no labels"
    fewest, most = min(classes.values()), max(classes.values())
    return f"{len(classes):,}, of {fewest:,}" + (f" to {most:,} images" if most > fewest else " images each")


COMMANDS = (init,)
