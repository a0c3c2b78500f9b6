"""Commands in processes of their own, forked off one that has loaded TensorFlow: seconds less for each of them.

`python -m support.forked` is that one. A line of JSON on its standard input starts a command and waits for it; a line
on its standard output says its process, and another one how it ended.
"""

import atexit
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import rotnet_keras

# What is read from the environment when something is imported, or by the interpreter itself.
READ_EARLY = (
    *(
        "CUDA",
        "HDF5",
        "HOME",
        "KERAS",
        "LANG",
        "LC_",
        "MALLOC",
        "MPL",
        "OMP",
        "ONEDNN",
        "OPENBLAS",
        "PATH",
        "PYTHON",
        "TF_",
        "XDG",
    ),
)
# In which TensorFlow is loaded on a busy machine.
START_SECONDS = 120


def _early(environment):
    return {name: value for name, value in environment.items() if name.startswith(READ_EARLY)}


class ForkServer:
    """Starts commands of `rotnet-keras`, one at a time."""

    def __init__(self):
        self.environment = dict(os.environ)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "support.forked"],
            cwd=Path(__file__).parents[1],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        self._said = b""
        atexit.register(self._process.kill)

    def serves(self, environment):
        """Whether a command in this environment would find what it finds in a fresh interpreter."""
        return _early(environment) == _early(self.environment)

    def run(self, arguments, cwd, environment, timeout):
        """Run a command; the result, as `subprocess.run` gives it."""
        with tempfile.TemporaryDirectory() as folder:
            output, errors = Path(folder, "out"), Path(folder, "err")
            asked = {"arguments": arguments, "cwd": str(cwd or Path.cwd()), "environment": environment}
            line = json.dumps(asked | {"output": str(output), "errors": str(errors)})
            self._process.stdin.write(line.encode() + b"\n")
            pid = self._number(START_SECONDS)
            code = self._number(timeout)
            if code is None:
                os.kill(pid, signal.SIGKILL)
                self._number(START_SECONDS)
            texts = [file.read_text(encoding="utf-8") for file in (output, errors)]
        if code is None:
            raise subprocess.TimeoutExpired(arguments, timeout, *texts)
        return subprocess.CompletedProcess(arguments, code, *texts)

    def _number(self, timeout):
        """The next number that the server says; None where the time is up first."""
        deadline = time.monotonic() + timeout
        while b"\n" not in self._said:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._process.stdout], [], [], left)[0]:
                return None
            more = os.read(self._process.stdout.fileno(), 4096)
            assert more, "the fork server has ended"
            self._said += more
        line, self._said = self._said.split(b"\n", 1)
        return int(line)


def _serve():
    import matplotlib.figure  # noqa: F401
    import sklearn.linear_model
    import sklearn.neighbors  # noqa: F401

    import rotnet_keras.config.loading
    import rotnet_keras.engine  # noqa: F401
    from rotnet_keras.cli.main import main

    for line in sys.stdin:
        asked = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _become(asked, main)
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def _become(asked, main):
    """Be the process of a command, to its end."""
    code = 1
    try:
        for number, name in enumerate((os.devnull, asked["output"], asked["errors"])):
            file = os.open(name, os.O_WRONLY | os.O_CREAT if number else os.O_RDONLY, 0o600)
            os.dup2(file, number)
            os.close(file)
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
        os.environ.clear()
        os.environ.update(asked["environment"])
        os.chdir(asked["cwd"])
        sys.argv = [str(Path(rotnet_keras.__file__).with_name("__main__.py")), *asked["arguments"]]
        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve()
