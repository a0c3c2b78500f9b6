"""The command `rotnet-tui`."""

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from rotnet_keras.cli.options import Version
from rotnet_keras.errors import RotnetError
from rotnet_keras.runs.folder import default_runs_dir, find_run
from rotnet_keras.text import printable

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def tui(
    run: Annotated[str | None, typer.Argument(metavar="[RUN]", help="A run to open at once.")] = None,
    runs_dir: Annotated[Path | None, typer.Option(help="Where runs are; ROTNET_RUNS_DIR or ./runs by default.")] = None,
    serve: Annotated[bool, typer.Option("--serve", help="Show it in a browser of this machine instead.")] = False,
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="With --serve: where it listens, on 127.0.0.1 only.")
    ] = 8617,
    version: Version = False,
) -> None:
    """Launch runs and watch them live. Quitting never stops a run."""
    folder = runs_dir or default_runs_dir()
    opened = find_run(run, folder) if run else None
    if serve:
        _serve([str(run)] if run else [], folder, port)
        return
    if not sys.stdout.isatty() and "TEXTUAL_DRIVER" not in os.environ:
        raise RotnetError("rotnet-tui needs a terminal. For scripts there is: rotnet-keras runs --json")
    if os.environ.get("TERM") == "dumb":
        raise RotnetError("This terminal (TERM=dumb) cannot be drawn on. Instead: rotnet-keras status RUN, logs -f RUN")
    from rotnet_tui.app import RotnetApp

    application = RotnetApp(folder, opened)
    application.run()
    if application.crash_report:
        print(f"rotnet-tui crashed; no run was touched. What happened: {application.crash_report}", file=sys.stderr)
    sys.exit(application.return_code or 0)


def _serve(arguments: list[str], runs_dir: Path, port: int) -> None:
    try:
        from textual_serve.server import Server
    except ImportError:
        raise RotnetError("--serve needs another package: pip install 'rotnet-keras[web]'") from None
    words = [sys.executable, "-m", "rotnet_tui", *arguments, "--runs-dir", str(runs_dir.absolute())]
    try:
        Server(shlex.join(words), host="127.0.0.1", port=port, title="rotnet-tui").serve()
    except OSError as error:
        raise RotnetError(f"cannot listen on port {port}, choose another with --port: {error.strerror}") from None


def main() -> None:
    """Entry point: a user's mistake ends in a message, never in a traceback."""
    try:
        app()
    except RotnetError as error:
        print(printable(str(error)), file=sys.stderr)
        sys.exit(error.exit_code)
