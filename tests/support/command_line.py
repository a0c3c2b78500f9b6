"""The command line and the interpreter, each time in a process of its own."""

import os
import subprocess
import sys


def command(*arguments):
    return [sys.executable, "-m", "rotnet_keras", *map(str, arguments)]


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
