"""What the commands share: their class, common arguments and options, how they find runs, and how they print."""

import json
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from rotnet_keras import __version__
from rotnet_keras.errors import RecipeError
from rotnet_keras.text import duration, first_few, printable

if TYPE_CHECKING:
    from rotnet_keras.config.schema import Recipe
    from rotnet_keras.config.sections import Backbone
    from rotnet_keras.runs.folder import RunFolder

# Characters of a progress bar.
PROGRESS_WIDTH = 20

# Where a command's words are kept as they were typed.
TYPED_WORDS = "rotnet-keras typed words"

F = TypeVar("F", bound=Callable[..., Any])


class Argument(click.Argument):
    """A positional argument with a help text, which not every version of click knows.

    Args:
        metavar: what stands for it in the usage line, with brackets and dots as needed.
        description: its help text.
    """

    def __init__(self, *declarations: Any, metavar: str, description: str, **attributes: Any) -> None:
        super().__init__(*declarations, metavar=metavar, **attributes)
        self.description = description

    def get_help_record(self, ctx: click.Context) -> tuple[str, str]:
        """The argument's row in the help: its name and its text."""
        return str(self.metavar), self.description


class Option(click.Option):
    """An option that takes a value.

    Args:
        former: its name in earlier versions, which goes on working and is not in the help.
    """

    def __init__(self, *declarations: Any, former: str = "", **attributes: Any) -> None:
        super().__init__(*declarations, **attributes)
        self.former = former


class Command(click.Command):
    """A command whose help shows its arguments, and examples of its use.

    Args:
        examples: command lines that can be typed as they are.
    """

    def __init__(self, name: str | None, *, examples: Sequence[str] = (), **attributes: Any) -> None:
        super().__init__(name, context_settings={"show_default": True}, **attributes)
        self.examples = tuple(examples)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the command's words, and keep them as they were typed but for former names of options."""
        args = self._with_current_names(args)
        ctx.meta[TYPED_WORDS] = [str(ctx.info_name), *args]
        return super().parse_args(ctx, args)

    def _with_current_names(self, words: list[str]) -> list[str]:
        names = {each.former: each.opts[0] for each in self.params if isinstance(each, Option) and each.former}
        end = words.index("--") if "--" in words else len(words)
        pairs = [word.partition("=") for word in words[:end]]
        return ["".join((names.get(name, name), *rest)) for name, *rest in pairs] + words[end:]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the arguments and then the options."""
        rows = [parameter.get_help_record(ctx) for parameter in self.params if isinstance(parameter, Argument)]
        if rows:
            with formatter.section("Arguments"):
                formatter.write_dl(rows)
        options = (p.get_help_record(ctx) for p in self.get_params(ctx) if not isinstance(p, click.Argument))
        with formatter.section("Options"):
            formatter.write_dl([row for row in options if row])

    def format_arguments(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write nothing: newer versions of click would list the arguments again."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples."""
        if self.examples:
            with formatter.section("Example" if len(self.examples) == 1 else "Examples"):
                for example in self.examples:
                    formatter.write(f"{'':>{formatter.current_indent}}{example}\n")


def typed_command() -> str:
    """The command that runs, for a file that says how it was made: as it was typed, then the defaults in use.

    Later versions may have other defaults.
    """
    context = click.get_current_context()
    words = ["rotnet-keras", *context.meta[TYPED_WORDS]]
    for parameter in context.command.params:
        value = context.params.get(str(parameter.name))
        by_default = context.get_parameter_source(str(parameter.name)) is ParameterSource.DEFAULT
        if by_default and isinstance(value, str | int | float) and not isinstance(value, bool):
            words += [parameter.opts[0], f"{value:g}" if isinstance(value, float) else str(value)]
    return shlex.join(words)


def command(name: str | None = None, *, examples: Sequence[str] = ()) -> Callable[[Callable[..., Any]], Command]:
    """Make a command of a function; its docstring is the help, its first line also the line in the list of commands."""
    return click.command(name, cls=Command, examples=examples)


def argument(name: str, metavar: str, description: str, **attributes: Any) -> Callable[[F], F]:
    """A positional argument with a help text."""
    return click.argument(name, cls=Argument, metavar=metavar, description=description, **attributes)


def option(*names: str, metavar: str, **attributes: Any) -> Callable[[F], F]:
    """An option that takes a value; `former` is its name in earlier versions."""
    return click.option(*names, cls=Option, metavar=metavar, **attributes)


def flag(*names: str, description: str) -> Callable[[F], F]:
    """An option without a value."""
    return click.option(*names, is_flag=True, help=description)


def _channels(text: str | None) -> list[int] | None:
    """Numbers of one to three channels, between commas."""
    if text is None:
        return None
    words = [word.strip() for word in text.split(",")]
    if len(words) > 3 or not all(word.isascii() and word.isdigit() for word in words):
        raise RecipeError(f"--shown: expected one to three channels, such as 3,2,1, got {text!r}")
    return [int(word) for word in words]


def _default_runs_dir() -> Path:
    from rotnet_keras.runs.folder import default_runs_dir

    return default_runs_dir()


PATH = click.Path(path_type=Path)

recipe_argument = argument("recipe", "RECIPE", "A TOML file, or the name of a shipped recipe.")
overrides_argument = argument(
    "overrides", "[KEY=VALUE]...", "Values to use instead of the recipe's, such as train.epochs=3.", nargs=-1
)
run_argument = argument("run", "RUN", "The name of a run, or the path of its folder.")
images_argument = argument(
    "images", "IMAGES...", "Image files, or folders of them.", nargs=-1, required=True, type=PATH
)
name_option = option("--name", metavar="NAME", help="Name of the run; recipe and time by default.")
runs_dir_option = option(
    "--runs-dir",
    metavar="FOLDER",
    type=PATH,
    default=_default_runs_dir,
    show_default=False,
    help="Folder that holds the runs; $ROTNET_RUNS_DIR or ./runs by default.",
)
detach_option = flag("--detach", description="Start in the background and return at once.")
json_option = flag("--json", "as_json", description="Print JSON.")
yes_option = flag("--yes", "-y", description="Do not ask for confirmation.")
csv_option = option("--csv", metavar="FILE", type=PATH, help="Also write all rows to this CSV file.")
tap_option = option(
    "--tap",
    metavar="LAYER",
    help="Layer to read features from; the model's default tap otherwise. conv2+conv3 reads two side by side.",
)
average_option = option(
    "--average",
    metavar="OVER",
    type=click.Choice(["none", "mirror", "crops"]),
    default="none",
    help="Average over mirror (an image and its mirror image) or over ten crops; none by default.",
)
any_size_option = option(
    "--size",
    metavar="PIXELS",
    type=click.IntRange(8, 2048),
    help="Side that images are resized to, for a model that takes any size.",
)
shown_option = option(
    "--shown",
    metavar="R,G,B",
    callback=lambda context, parameter, value: _channels(value),
    help="Channels, from 0 on, that the page shows as red, green and blue, or one as grey; the first three by default.",
)
blocks_option = option(
    "--blocks", metavar="N", type=click.IntRange(2, 8), help="Number of blocks of nin, compact and airbench."
)
width_option = option(
    "--width", metavar="FACTOR", type=click.FloatRange(0.05, 16), default=1.0, help="Factor on the number of channels."
)
version_option = click.version_option(
    __version__, message=f"rotnet-keras {__version__}", help="Print the version and exit."
)


def size_option(default: int) -> Callable[[F], F]:
    """The option for the side of square images."""
    return option(
        "--size", metavar="PIXELS", type=click.IntRange(8, 1024), default=default, help="Side length of the images."
    )


def parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """Recipe keys and their values from words like `train.epochs=3`.

    Raises:
        RecipeError: a word is not of this form.
    """
    from rotnet_keras.config.loading import parse_override

    return dict(map(parse_override, overrides))


def load_for_run(recipe: str, overrides: Sequence[str], runs_dir: Path) -> "tuple[Recipe, dict[str, Any]]":
    """The checked recipe with its data pinned, and the first facts of its run."""
    from rotnet_keras.runs.launch import load_for_run as load

    return load(recipe, parse_overrides(overrides), runs_dir, warn)


def warn(note: str) -> None:
    """Print a line of warning to standard error, once in a command."""
    given: set[str] = click.get_current_context().find_root().meta.setdefault("rotnet-keras warnings", set())
    if note not in given:
        click.echo(printable(f"Warning: {note}"), err=True)
    given.add(note)


def find_run(name: str, runs_dir: Path) -> "RunFolder":
    """The run of this name, or at this path.

    Raises:
        RunError: there is none.
    """
    from rotnet_keras.runs.folder import find_run as find

    return find(name, runs_dir)


def find_model(name: str, runs_dir: Path) -> "Path | RunFolder":
    """The .keras file at this path, or the run or pretrained model of this name.

    Raises:
        DataError: there is no such file.
        RunError: there is no such run and no such pretrained model.
    """
    from rotnet_keras.runs.zoo import find_run_or_pretrained

    if not name.endswith(".keras"):
        return find_run_or_pretrained(name, runs_dir)
    require_file(Path(name))
    return Path(name)


def backbone_spec(name: str, blocks: int | None, width: float, size: int, stem: str = "standard") -> "Backbone":
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
    if size < (smallest := ARCHITECTURES[name].smallest(stem)):
        raise RecipeError(f"--size: {name} needs images of at least {smallest} pixels, got {size}")
    try:
        return Backbone.model_validate({"name": name, "blocks": blocks, "width": width, "stem": stem})
    except ValidationError as error:
        raise RecipeError("; ".join(e["msg"] for e in error.errors())) from None


def require_file(file: Path) -> None:
    """Check that a file that is to be read exists.

    Raises:
        DataError: it does not.
    """
    from rotnet_keras.errors import DataError

    if not file.is_file():
        raise DataError(f"no file {file.absolute()}")


def require_parent_folder(*files: Path | None) -> None:
    """Check before anything is computed that files to be written have a folder; None is skipped.

    Raises:
        RecipeError: one has none.
    """
    from rotnet_keras.errors import RecipeError

    for file in files:
        if file and not file.absolute().parent.is_dir():
            raise RecipeError(f"{file}: the folder {file.parent} does not exist; create it first")


def require_suffix(file: Path, suffixes: Sequence[str]) -> None:
    """Check that the name of a file given as --to has one of some endings, in upper or lower case.

    Raises:
        RecipeError: it has another.
    """
    from rotnet_keras.errors import RecipeError

    if file.suffix.lower() not in suffixes:
        *others, last = suffixes
        raise RecipeError(f"--to: expected a name that ends in {', '.join(others)} or {last}, got {file}")


def echo(text: object, newline: bool = True) -> None:
    """Print text that may hold names of files and runs, without control characters that could take over a terminal."""
    click.echo(printable(str(text)), nl=newline)


def echo_json(value: Any) -> None:
    """Print a value as indented JSON; what JSON has no type for, such as a path, as a string."""
    click.echo(json.dumps(value, indent=2, default=str))


def echo_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print aligned columns of plain text, without a heading where all `columns` are empty."""
    table = [columns, *rows] if any(columns) else rows
    widths = [max((len(row[i]) for row in table), default=0) for i in range(len(columns))]
    for row in table:
        cells = [cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False)]
        echo("  ".join([*cells, row[-1]]).rstrip())


def echo_skipped(failures: Sequence[tuple[object, str]]) -> None:
    """Print which files were skipped and why; nothing where none was."""
    if failures:
        echo(f"Skipped {counted_names([f'{file} ({reason})' for file, reason in failures], 'files')}")


class ProgressLine:
    """A line of a terminal with a bar, the number of files that have been read, and the time that is left."""

    def __init__(self) -> None:
        self._start = (0.0, 0)
        self._last: tuple[str, int, int] = ("", 0, 0)

    def __call__(self, what: str, done: int, total: int) -> None:
        """Show how many of the files have been read; nothing where standard error is no terminal."""
        if not sys.stderr.isatty():
            return
        print(f"\r{self.text(what, done, total, time.monotonic())}", end="", file=sys.stderr, flush=True)
        if done == total:
            print(file=sys.stderr, flush=True)

    def text(self, what: str, done: int, total: int, now: float) -> str:
        """The line at a time in seconds. The time that is left follows from what was done since the first call."""
        last, self._last = self._last, (what, done, total)
        if last[0] != what or last[2] != total or done <= last[1]:
            self._start = (now, done)
        began, first = self._start
        bar = ("#" * (PROGRESS_WIDTH * done // max(1, total))).ljust(PROGRESS_WIDTH, ".")
        left = duration((now - began) / (done - first) * (total - done)) if first < done < total else ""
        # Trailing spaces wipe what a longer line left.
        return f"{what}: [{bar}] {done:,}/{total:,}{f', {left} left' if left else ''}".ljust(72)


show_progress = ProgressLine()


def counted_names(names: Sequence[str], what: str) -> str:
    """How many things there are, and the first of them: "7 files: a, b, c, d, e and 2 more", or "none"."""
    return f"{len(names):,} {what}: {first_few(names)}" if names else "none"
