"""The table of `make mutants` fits the code, so that a stale line is noticed before somebody runs it."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "scripts" / "mutants.py"


def test_every_line_of_the_table_fits_the_code():
    result = subprocess.run([sys.executable, "-P", SCRIPT, "--list"], capture_output=True, text=True, check=False)
    stale = [line for line in result.stdout.splitlines() if line.startswith("STALE")]
    assert not stale and result.returncode == 0, result.stderr
