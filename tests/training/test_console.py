"""What a run says while it works."""

from support.command_line import run_python

TABLE = """
import sys
from pathlib import Path
from rotnet_keras.training.console import Console

columns = int(sys.argv[2])
names = [f"class {number}" for number in range(columns)]
rows = [["ours", *["12.3"] * columns], ["theirs", *["45.6"] * columns]]
Console(Path(sys.argv[1])).table("Results", ["", *names], rows)
"""


def test_a_table_that_is_too_wide_is_transposed(tmp_path):
    for columns in (4, 20):
        log = tmp_path / f"{columns}.txt"
        run_python(TABLE, log, columns)
        lines = [line for line in log.read_text().splitlines() if "12.3" in line]
        assert len(lines) == {4: 1, 20: 20}[columns]
        if columns == 20:
            assert "class 19" in lines[-1] and "45.6" in lines[-1]


def test_a_bar_shows_whole_items_and_the_time_left_by_what_is_done(tmp_path):
    code = """
import time
from pathlib import Path
from rotnet_keras.training.console import Console

console = Console(Path({log!r}))
console.progress("runs", 0.0, 4, "first", 0)
time.sleep(1.0)
console._last_logged = 0
console.progress("runs", 3.0, 4, "first, nearly done", 0)
"""
    log = tmp_path / "log.txt"
    run_python(code.format(log=str(log)))
    (line,) = [line for line in log.read_text().splitlines() if "nearly" in line]
    assert "runs: 0/4, first, nearly done, ETA 0 s" in line
