"""What the commands share: their arguments, how they find runs, and how they print."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from rotnet_keras import __version__
from rotnet_keras.text import printable

# Of a list of files, so many are named.
NAMED = 5

RecipeName = Annotated[str, typer.Argument(metavar="RECIPE", help="A TOML file, or the name of a shipped recipe.")]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="A run's name, or the path of its folder.")]
RunsDir = Annotated[Path | None, typer.Option(help="Where runs are kept; ROTNET_RUNS_DIR or ./runs by default.")]
NewName = Annotated[str | None, typer.Option(help="The run's name; recipe and time by default.")]
Detach = Annotated[bool, typer.Option("--detach", help="Start it in the background and return.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Values that replace the recipe's: train.epochs=3")
]


def _tell_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"rotnet-keras {__version__}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Print the version and end.")
]


def load(recipe: str, overrides: list[str] | None, runs_dir: Path) -> tuple[Any, dict[str, Any]]:
    """The checked recipe with its data pinned, and the first facts of its run."""
    from rotnet_keras.config.loading import parse_override
    from rotnet_keras.runs.launch import load_for_run

    return load_for_run(recipe, dict(map(parse_override, overrides or [])), runs_dir)


def chosen(runs_dir: Path | None) -> Path:
    """The runs folder that was given, or the default."""
    from rotnet_keras.runs.folder import default_runs_dir

    return runs_dir or default_runs_dir()


def find(name: str, runs_dir: Path | None) -> Any:
    """The run of this name, or at this path."""
    from rotnet_keras.runs.folder import find_run

    return find_run(name, chosen(runs_dir))


def find_network(name: str, runs_dir: Path | None) -> Any:
    """The run of this name, or at this path, or the network of this name that ships."""
    from rotnet_keras.runs.zoo import find_network

    return find_network(name, chosen(runs_dir))


def backbone_spec(name: str, blocks: int | None, width: float, size: int) -> Any:
    """The backbone of these options, as a recipe describes it.

    Raises:
        RecipeError: there is none of that name, it lacks such an option, or the images are too small for it.
    """
    from pydantic import ValidationError

    from rotnet_keras.config.architectures import ARCHITECTURES
    from rotnet_keras.config.finder import did_you_mean
    from rotnet_keras.config.sections import Backbone
    from rotnet_keras.errors import RecipeError

    if name not in ARCHITECTURES:
        hint = did_you_mean(name, ARCHITECTURES)
        raise RecipeError(f"no backbone is called {name!r}{hint}; rotnet-keras backbones lists them")
    if size < ARCHITECTURES[name].smallest:
        raise RecipeError(f"--size: {name} takes images of {ARCHITECTURES[name].smallest} pixels or more, got {size}")
    try:
        return Backbone.model_validate({"name": name, "blocks": blocks, "width": width})
    except ValidationError as error:
        raise RecipeError("; ".join(e["msg"] for e in error.errors())) from None


def tell(text: object, newline: bool = True) -> None:
    """Print text in which names of files and runs may stand, without what could take over the terminal."""
    typer.echo(printable(str(text)), nl=newline)


def print_rows(columns: list[str], rows: list[list[str]]) -> None:
    """Aligned columns of plain text, the last one as long as it is."""
    table = [columns, *rows] if any(columns) else rows
    widths = [max(len(row[i]) for row in table) for i in range(len(columns))]
    for row in table:
        cells = [cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False)]
        tell("  ".join([*cells, row[-1]]).rstrip())


def check_places(*files: Path | None) -> None:
    """See to it, before anything is computed, that files have a folder to be written into.

    Raises:
        RecipeError: one has none.
    """
    from rotnet_keras.errors import RecipeError

    for file in files:
        if file and not file.absolute().parent.is_dir():
            raise RecipeError(f"{file}: there is no folder {file.parent} to write into; make it first")


def tell_progress(what: str, done: int, total: int) -> None:
    """Show in a terminal how far a look through many files has come."""
    if sys.stderr.isatty():
        print(f"\r{what}: {done:,}/{total:,}", end="\n" if done == total else "", file=sys.stderr, flush=True)


def some(names: list[str], what: str) -> str:
    """How many things there are, and the first of them."""
    if not names:
        return "none"
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return f"{len(names):,} {what}: {printable(', '.join(names[:NAMED]))}{more}"
