"""The commands about runs: list, follow, compare, report, resume, stop, kill, delete."""

import codecs
import time
from pathlib import Path
from typing import TYPE_CHECKING

from rotnet_keras.cli.options import (
    PATH,
    argument,
    command,
    counted_names,
    echo,
    echo_json,
    echo_table,
    find_run,
    flag,
    json_option,
    option,
    run_argument,
    runs_dir_option,
    warn,
)
from rotnet_keras.errors import RecipeError

if TYPE_CHECKING:
    pass

# A killed process is given this long to disappear.
KILL_SECONDS = 10
# From a run's last event to the end of its process.
EXIT_SECONDS = 15
# Between two looks at a log that is followed.
FOLLOW_SECONDS = 0.5
# A log is printed in blocks of so many bytes.
LOG_BLOCK = 1 << 20


@command(examples=("rotnet-keras runs 'rot>90 -state:failed'",))
@argument(
    "query",
    "[QUERY]",
    "Which runs, as in the filter of the terminal UI: 'cifar state:running rot>90 -tag:old'.",
    default="",
)
@runs_dir_option
@json_option
def runs(query: str, runs_dir: Path, as_json: bool) -> None:
    """List the runs with their state and accuracy."""
    from rotnet_keras.runs.folder import list_runs
    from rotnet_keras.runs.queries import parse_query
    from rotnet_keras.runs.status import COLUMNS, summaries, summary_row

    wanted = parse_query(query)
    closed: list[Path] = []
    every = summaries(list_runs(runs_dir, closed))
    found = [each for each in every if wanted.matches(each)]
    if closed:
        warn(f"{counted_names([path.name for path in closed], 'folders')} in {runs_dir} may not be read by this user")
    if as_json:
        echo_json(found)
    elif not every:
        echo(f"No runs in {runs_dir}. Start one: rotnet-keras run quickstart")
    elif not found:
        echo(f"None of the {len(every)} runs in {runs_dir} matches {query!r}.")
    else:
        columns, rows = list(COLUMNS), [summary_row(each) for each in found]
        if any(each["job"] for each in found):
            columns, rows = (
                [*columns, "job"],
                [[*row, each["job"] or ""] for row, each in zip(rows, found, strict=True)],
            )
        echo_table(columns, rows)


@command(examples=("rotnet-keras tag my_run paper baseline", "rotnet-keras tag my_run old --remove"))
@run_argument
@argument("tags", "[TAG...]", "Tags to add; none prints those that the run has.", nargs=-1)
@flag("--remove", description="Remove these tags instead of adding them.")
@runs_dir_option
def tag(run: str, tags: tuple[str, ...], remove: bool, runs_dir: Path) -> None:
    """Add tags to a run, remove or print them.

    Tags are found by queries (`tag:paper`), and shown in lists, comparisons and reports. A run's recipe stays as it is.
    """
    from rotnet_keras.runs.tags import change_tags, read_labels

    folder = find_run(run, runs_dir)
    if remove and not tags:
        raise RecipeError("--remove: expected the tags to remove")
    known = read_labels(folder).tags
    if remove and (unknown := [word for word in tags if word not in known]):
        raise RecipeError(f"{folder.name} has no tag {', '.join(unknown)}; it has: {', '.join(known) or 'none'}")
    if tags:
        known = change_tags(folder, () if remove else tags, tags if remove else ())
    echo(f"{folder.name}: {' '.join(known) or 'no tags'}")


@command(examples=("rotnet-keras note my_run 'the first run with the new crops'",))
@run_argument
@argument("text", "[TEXT]", "The new note; an empty text removes it. Without one the note is printed.", required=False)
@runs_dir_option
def note(run: str, text: str | None, runs_dir: Path) -> None:
    """Write a note on a run, or print it."""
    from rotnet_keras.runs.tags import read_labels, write_note

    folder = find_run(run, runs_dir)
    if text is not None:
        write_note(folder, " ".join(text.split()))
    echo(f"{folder.name}: {read_labels(folder).note or 'no note'}")


@command()
@run_argument
@runs_dir_option
@json_option
def status(run: str, runs_dir: Path, as_json: bool) -> None:
    """Show the state, progress and results of a run.

    Of a pretraining, it also says whether the model learns and whether rotation is a sensible task for the images.
    """
    from rotnet_keras.runs.status import summary, summary_lines, verdict_text

    folder = find_run(run, runs_dir)
    found = {**summary(folder), "verdict": verdict_text(folder)}
    if as_json:
        echo_json(found)
    else:
        echo(summary_lines(found))


@command(examples=("rotnet-keras why my_run",))
@run_argument
@runs_dir_option
@json_option
def why(run: str, runs_dir: Path, as_json: bool) -> None:
    """Say why a run failed, and which command mends it.

    The answer comes from rules over the run's events, log and recipe, on this machine alone.
    """
    from dataclasses import asdict

    from rotnet_keras.runs.diagnosis import as_lines, diagnose

    folder = find_run(run, runs_dir)
    found = diagnose(folder)
    if as_json:
        echo_json(asdict(found))
    else:
        echo(as_lines(folder, found))


@command()
@run_argument
@runs_dir_option
@flag("--follow", "-f", description="Keep printing what is added, until the run ends.")
def logs(run: str, runs_dir: Path, follow: bool) -> None:
    """Print the log of a run."""
    from rotnet_keras.files import open_file
    from rotnet_keras.runs.processes import Process
    from rotnet_keras.runs.values import OUTCOMES

    folder = find_run(run, runs_dir)
    offset, decoder = 0, codecs.getincrementaldecoder("utf-8")("replace")
    while True:
        ended = folder.process() is Process.GONE or folder.state() in OUTCOMES
        try:
            with open_file(folder.log, folder.path) as file:
                file.seek(offset)
                text = file.read(LOG_BLOCK)
        except FileNotFoundError:
            text = b""
        offset += len(text)
        echo(decoder.decode(text), newline=False)
        if text:
            continue
        if ended or not follow:
            return
        time.sleep(FOLLOW_SECONDS)


@command(examples=("rotnet-keras compare first second",))
@argument("names", "RUN RUN...", "Names of runs, or paths of their folders.", nargs=-1, required=True)
@runs_dir_option
@json_option
def compare(names: tuple[str, ...], runs_dir: Path, as_json: bool) -> None:
    """Compare the results and recipes of runs.

    Only recipe keys whose values differ are listed.
    """
    from rotnet_keras.runs.status import comparison_table

    folders = [find_run(name, runs_dir) for name in names]
    columns, rows = comparison_table(folders)
    if as_json:
        echo_json([dict(zip(columns, row, strict=True)) for row in rows])
    else:
        echo_table(columns, rows)


@command()
@run_argument
@runs_dir_option
def report(run: str, runs_dir: Path) -> None:
    """Write report.html and report.md of a run.

    A run writes them itself at its end; this shows how far an unfinished one has come.
    """
    from rotnet_keras.reports.report import write_report

    folder = find_run(run, runs_dir)
    write_report(folder)
    echo(folder.path / "report.html")


@command(examples=("rotnet-keras collect table3 figure2 --output results",))
@argument("studies", "STUDY...", "Finished studies: names of runs, or paths of their folders.", nargs=-1, required=True)
@option("--output", metavar="FOLDER", type=PATH, default=Path("results"), help="Folder to write into.")
@option("--name", metavar="NAME", default="studies", help="File name of the page, without its ending.")
@option("--title", metavar="TITLE", default="The paper's experiments, repeated", help="Heading of the page.")
@runs_dir_option
def collect(studies: tuple[str, ...], output: Path, name: str, title: str, runs_dir: Path) -> None:
    """Collect tables and figures of finished studies."""
    from rotnet_keras.reports.study_pages import collect as write
    from rotnet_keras.runs.values import PLAIN_NAME

    if not PLAIN_NAME.fullmatch(name):
        raise RecipeError(f"--name: expected a plain file name without its ending, got {name!r}")
    folders = [find_run(study, runs_dir) for study in studies]
    page = write(folders, output, name, title)
    echo(page)
