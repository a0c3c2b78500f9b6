"""The command line: in this process, where that is enough, or in a process of its own."""

import contextlib
import io
import os
import subprocess
import sys
from unittest import mock

from rotnet_keras.cli.main import main


def command(*arguments):
    return [sys.executable, "-m", "rotnet_keras", *map(str, arguments)]


def invoke(*arguments, cwd=None, **environment):
    """Run the command line in this process, for commands that neither load TensorFlow nor train.

    Everything that `main` does is part of it: messages of errors, exit codes, both streams. A mistake of the program
    raises here what it would have printed as a traceback.

    Returns:
        subprocess.CompletedProcess, as of `run_cli`.
    """
    words = [str(argument) for argument in arguments]
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    with (
        mock.patch.dict(os.environ, environment),
        mock.patch.object(sys, "argv", ["rotnet-keras", *words]),
        mock.patch.object(sys, "stdin", io.StringIO()),
        mock.patch("os._exit", side_effect=AssertionError("a command that trains ends its process: use run_cli")),
        contextlib.chdir(cwd or "."),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main(words)
        except SystemExit as error:
            code = error.code or 0
    written = (stream.buffer.getvalue().decode() for stream in (out, err))
    return subprocess.CompletedProcess(command(*words), code, *written)


def run_cli(*arguments, cwd=None, timeout=300, **environment):
    """Run the command line in a process of its own; environment variables by keyword."""
    return subprocess.run(
        command(*arguments),
        cwd=cwd,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def run_python(code, *arguments, **environment):
    """Run code in a fresh interpreter; its standard output, or a failure with what it said."""
    result = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout
