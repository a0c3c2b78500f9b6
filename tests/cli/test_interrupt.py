"""Ctrl-C while the program still begins."""

import signal
import subprocess
import sys

import pytest

# Interrupts the process as soon as it imports a module of a name.
INTERRUPTED = """
import builtins, os, runpy, signal, sys
imported = builtins.__import__
def interrupting(name, *arguments, **options):
    if name == {module!r}:
        os.kill(os.getpid(), signal.SIGINT)
    return imported(name, *arguments, **options)
builtins.__import__ = interrupting
sys.argv = [{package!r}, "--help"]
runpy.run_module({package!r}, run_name="__main__")
"""


@pytest.mark.parametrize(
    ("package", "module"),
    [("rotnet_keras", "click"), ("rotnet_keras", "rotnet_keras.cli.options"), ("rotnet_tui", "click")],
)
def test_an_interrupt_during_the_imports_ends_without_a_traceback(package, module):
    code = INTERRUPTED.format(package=package, module=module)
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (128 + signal.SIGINT, "", "")
