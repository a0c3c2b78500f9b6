#!/usr/bin/env python3
"""Break the code on purpose, one promise at a time, and see whether the test that is named for it notices:

    python scripts/mutants.py [--only WORD ...] [--list]

`mutants.toml` beside this file is the table: what is broken, where, and the test that must fail. Each breakage is made
in a copy of the checkout. The tests are run there unbroken first, because a test that fails anyway notices nothing. The
exit code is 1 if a breakage was not noticed and the table does not say why, or if the table no longer fits the code.
"""

import argparse
import importlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TABLE = Path(__file__).with_name("mutants.toml")
COPIED = ("rotnet_keras", "tui", "tests", "recipes", "scripts", "docs", "pyproject.toml", "README.md", "SECURITY.md")
# A test that takes longer has found nothing: it waits for what the breakage took away.
SECONDS = 180
# A test file that cannot be imported takes no other with it.
ALL = "--continue-on-collection-errors"
# Exit codes of pytest.
PASSED, FAILED = 0, 1
# Imported before anything is forked. Of the package only what loads TensorFlow, and that is dropped again.
LOADED_ONCE = (
    *("rotnet_keras.engine", "pytest", "hypothesis", "pydantic", "numpy", "PIL.Image", "psutil", "tomlkit", "click"),
    *("jinja2", "textual.app", "textual.widgets", "aiohttp", "sklearn.linear_model", "matplotlib.figure"),
)


@dataclass(frozen=True)
class Mutant:
    """A breakage.

    Attributes:
        promise: what the code no longer does.
        file: where, relative to the checkout.
        old: the text that is replaced; it is there once.
        new: what replaces it.
        test: the test that must fail, as pytest names it; several are separated by blanks.
        survives: why no test can notice it; empty if one does.
    """

    promise: str
    file: str
    old: str
    new: str
    test: str
    survives: str = ""

    def broken(self, text: str) -> str:
        """Return the file's text with the breakage.

        Raises:
            ValueError: the text to replace is not there exactly once.
        """
        if text.count(self.old) != 1:
            raise ValueError(f"{self.file} has {text.count(self.old)} times {self.old!r}, expected 1")
        return text.replace(self.old, self.new)


def read_table(path: Path = TABLE) -> list[Mutant]:
    return [Mutant(**entry) for entry in tomllib.loads(path.read_text(encoding="utf-8"))["mutant"]]


def main() -> int:
    parser = argparse.ArgumentParser(prog="mutants", description=__doc__)
    parser.add_argument("--only", nargs="+", default=[""], help="those with one of these words in their line")
    parser.add_argument("--list", action="store_true", help="print the table and check that it fits the code")
    chosen = parser.parse_args()
    mutants = [m for m in read_table() if any(word in f"{m.promise} {m.file} {m.test}" for word in chosen.only)]
    stale = [problem for mutant in mutants if (problem := _misfit(mutant))]
    for line in stale:
        print(line)
    if chosen.list or stale:
        for mutant in mutants if chosen.list else ():
            print(f"{mutant.promise}: {mutant.file}, {mutant.test}")
        return int(bool(stale))
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        wrong = _try_all(_copy(Path(folder)), mutants)
    print(f"{len(mutants)} breakages, {wrong} wrong, {(time.monotonic() - began) / 60:.1f} minutes")
    return int(wrong > 0)


def _misfit(mutant: Mutant) -> str:
    """Say how a line of the table does not fit the code; empty if it does."""
    try:
        mutant.broken((ROOT / mutant.file).read_text(encoding="utf-8"))
        missing = [name for name in mutant.test.split() if not _has_test(name)]
    except (OSError, ValueError) as error:
        return f"STALE    {mutant.promise}: {error}"
    return f"STALE    {mutant.promise}: no test {missing[0]}" if missing else ""


def _has_test(name: str) -> bool:
    """Return whether there is a test that pytest would find by a name such as tests/test_a.py::test_b."""
    file, _, function = name.partition("::")
    return not function or f"def {function.split('[')[0]}(" in (ROOT / file).read_text(encoding="utf-8")


def _copy(folder: Path) -> Path:
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.is_file():
            shutil.copy(source, folder / name)
    # Whoever imports a module compares its content with what was compiled: a breakage of equal length is noticed.
    words = ["-m", "compileall", "-q", "--invalidation-mode", "checked-hash", *("rotnet_keras", "tui", "tests")]
    subprocess.run([sys.executable, "-P", *words], cwd=folder, check=True)
    return folder


def _try_all(copy: Path, mutants: list[Mutant]) -> int:
    """Try every breakage; return how many went otherwise than the table says."""
    wrong, environment = 0, dict(os.environ)
    for module in LOADED_ONCE:
        importlib.import_module(module)
    # What the package sets when it is imported is part of what is broken.
    os.environ.clear()
    os.environ.update(environment)
    tests = sorted({name for mutant in mutants for name in mutant.test.split()})
    passed = copy / "passed"
    _forked(copy, [*tests, "--maxfail=1000", ALL], SECONDS * len(tests), passed)
    passing = passed.read_text(encoding="utf-8").splitlines()
    for mutant in mutants:
        failing = [name for name in mutant.test.split() if name not in passing]
        if failing:
            wrong += 1
            print(f"NOT RUN  {mutant.promise}: {failing[0]} fails or is skipped without the breakage", flush=True)
            continue
        file = copy / mutant.file
        whole, began = file.read_text(encoding="utf-8"), time.monotonic()
        file.write_text(mutant.broken(whole), encoding="utf-8")
        try:
            code = _forked(copy, mutant.test.split())
        finally:
            file.write_text(whole, encoding="utf-8")
        caught, seconds = code == FAILED, time.monotonic() - began
        wrong += caught == bool(mutant.survives)
        if caught:
            said = "caught  "
        elif code == PASSED:
            said = "SURVIVED" if not mutant.survives else "survived"
        else:
            said = "TIMED OUT" if code is None else f"EXIT {code}  "
        print(f"{said} {seconds:5.1f} s  {mutant.promise}: {mutant.survives or mutant.test}", flush=True)
    return wrong


def _forked(copy: Path, tests: list[str], seconds: float = SECONDS, passed: Path | None = None) -> int | None:
    """Run tests in the copy, in a process of their own; return pytest's exit code, None if it took too long.

    Args:
        copy: of the checkout.
        tests: words for pytest.
        seconds: how long they may take.
        passed: a file for the names of the tests that ran and did not fail, without parameters.
    """
    pid = os.fork()
    if not pid:
        _exit_with(lambda: _run_tests(copy, tests, passed))
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            # What the test left behind, such as a run that is waited for in vain.
            _end_group(pid)
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    _end_group(pid)
    os.waitpid(pid, 0)
    return None


def _run_tests(copy: Path, tests: list[str], passed: Path | None) -> int:
    os.setsid()
    os.chdir(copy)
    for module in [name for name in sys.modules if name.split(".")[0] in {"rotnet_keras", "rotnet_tui"}]:
        del sys.modules[module]
    sys.path[:0] = [str(copy), str(copy / "tui")]
    os.environ["PYTHONPATH"] = os.pathsep.join([str(copy), str(copy / "tui"), str(copy / "tests")])
    # The code that pytest runs is the copy's, not what is installed.
    sys.dont_write_bytecode = True
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    import pytest

    outcomes = _Outcomes()
    code = int(pytest.main(["-q", "-x", "-p", "no:cacheprovider", *tests], plugins=[outcomes]))
    if passed:
        names = sorted(outcomes.passed - outcomes.others)
        passed.write_text("\n".join(names), encoding="utf-8")
    return code


class _Outcomes:
    """Collects which tests passed; one that is skipped notices nothing."""

    def __init__(self) -> None:
        self.passed: set[str] = set()
        self.others: set[str] = set()

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Note how a step of a test went."""
        name = report.nodeid.split("[")[0]
        if report.outcome != "passed":
            self.others.add(name)
        elif report.when == "call":
            self.passed.add(name)


def _exit_with(work: Callable[[], int]) -> None:
    code = 99
    try:
        code = work()
    finally:
        os._exit(code)


def _end_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


if __name__ == "__main__":
    sys.exit(main())
