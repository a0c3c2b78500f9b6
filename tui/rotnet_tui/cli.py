"""The command `rotnet-tui`."""

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from rotnet_keras.cli.options import argument, command, flag, option, runs_dir_option, version_option
from rotnet_keras.errors import RotnetError
from rotnet_keras.host import python_command
from rotnet_keras.runs.folder import find_run
from rotnet_keras.text import printable

IMAGES = ("auto", "half-blocks", "sixel", "kitty")


@command("rotnet-tui", examples=("rotnet-tui", "rotnet-tui my_run --runs-dir /data/runs"))
@argument("run", "[RUN]", "A run to open at once.", required=False)
@runs_dir_option
@flag("--serve", description="Show it in a web browser on this machine instead of the terminal.")
@option(
    "--port",
    metavar="PORT",
    type=click.IntRange(1, 65535),
    default=8617,
    help="With --serve: the port of 127.0.0.1 to listen on.",
)
@option(
    "--images",
    metavar="HOW",
    type=click.Choice(IMAGES),
    help="How images are drawn, from now on: half-blocks, sixel, kitty, or auto for what the terminal can.",
)
@version_option
def app(run: str | None, runs_dir: Path, serve: bool, port: int, images: str | None) -> None:
    """Start runs and watch them live.

    Quitting never stops a run.
    """
    opened = find_run(run, runs_dir) if run else None
    if serve:
        _serve([*([run] if run else []), *(["--images", images] if images else [])], runs_dir, port)
        return
    if not sys.stdout.isatty() and "TEXTUAL_DRIVER" not in os.environ:
        raise RotnetError("rotnet-tui needs a terminal. In scripts, use: rotnet-keras runs --json")
    if os.environ.get("TERM") == "dumb":
        raise RotnetError(
            "rotnet-tui cannot draw on this terminal (TERM=dumb). "
            "Use instead: rotnet-keras status RUN, or rotnet-keras logs -f RUN"
        )
    from rotnet_tui.app import RotnetApp

    application = RotnetApp(runs_dir, opened)
    if images:
        application.settings.images = images  # type: ignore[assignment]
    application.run()
    if application.crash_report:
        print(f"rotnet-tui crashed; no run was affected. See {application.crash_report}", file=sys.stderr)
    sys.exit(application.return_code or 0)


def _serve(arguments: list[str], runs_dir: Path, port: int) -> None:
    """Serve the terminal UI as a web page of this machine, at an address with a token, until Ctrl-C."""
    try:
        from rotnet_tui.web import PrivateServer
    except ImportError:
        raise RotnetError("--serve needs another package: pip install 'rotnet-keras[web]'") from None
    words = python_command("-m", "rotnet_tui", *arguments, "--runs-dir", str(runs_dir.absolute()))
    try:
        PrivateServer(shlex.join(words), port, "rotnet-tui").serve()
    except OSError as error:
        raise RotnetError(f"cannot listen on port {port} ({error.strerror}); choose another with --port") from None


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `rotnet-tui`: a user's mistake ends in a message, never in a traceback.

    Args:
        arguments: the words after the program's name; those of this process by default.
    """
    try:
        app(arguments, prog_name="rotnet-tui")
    except RotnetError as error:
        print(printable(str(error)), file=sys.stderr)
        sys.exit(error.exit_code)
