"""The command: runs the parts one after another, and writes the page after each of them."""

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

from gpu_check import parts
from gpu_check.long_run import RESERVE, as_json, long_run
from gpu_check.page import write_page
from gpu_check.processes import Check, json_lines, python, say

MINUTES = 8.0
# The most that a part takes, in seconds, of the eight minutes; a shorter check shortens all of them.
STEPS_SECONDS, RESUME_SECONDS, SHARED_SECONDS, TOO_LARGE_SECONDS, RATES_SECONDS = 120.0, 60.0, 45.0, 45.0, 110.0
# Recipes whose steps are timed, and for how many seconds each; a rehearsal makes few steps of small batches.
RATED = ("cifar_nin", "imagenet_alexnet", "imagenet_resnet50")
RATED_SECONDS = 6.0
REHEARSED = {
    "cifar_nin": ["train.batch=4"],
    "imagenet_alexnet": ["train.batch=1", "backbone.width=0.25"],
    "imagenet_resnet50": ["train.batch=1", "backbone.width=0.25"],
}


def rates(check: Check, seconds: float) -> dict[str, Any]:
    """The rates of steps, as runs have them by default, and with operations that need not be deterministic."""
    rows = []
    until = time.monotonic() + seconds
    for deterministic in (True, False):
        for recipe in RATED:
            words = ["-m", "gpu_check.rates", recipe, f"devices.deterministic={str(deterministic).lower()}"]
            words += ["train.precision=auto"]
            words += ["--seconds", "0.5", *REHEARSED[recipe]] if check.rehearse else ["--seconds", str(RATED_SECONDS)]
            left = until - time.monotonic()
            if left < 10:
                continue
            code, output = python(check, *words, seconds=left)
            last = [line for line in output.splitlines() if line.strip()][-1:] or [""]
            failed = {"recipe": recipe, "deterministic": deterministic, "error": f"exit code {code}: {last[0][:200]}"}
            rows.append((json_lines(output) or [failed])[-1])
    expected = 2 * len(RATED)
    good = [row for row in rows if row.get("finite")]
    shown = ", ".join(f"{row['recipe']} {row['images_per_s']:,.0f} images/s" for row in good if row["deterministic"])
    summary = f"{len(good)} of {expected} measured; {shown}"
    return {"ok": len(good) == expected, "summary": summary, "rows": rows}


def main() -> int:
    """Run the check; the exit code is 0 if everything was as expected, and 1 otherwise."""
    parser = argparse.ArgumentParser(
        prog="scripts/gpu_check.sh", description="Check what a GPU does with rotnet-keras, and write it to a folder."
    )
    parser.add_argument("--output", type=Path, default=Path("gpu_check"), help="folder of the results (%(default)s)")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="the most that it takes (%(default)g)")
    parser.add_argument("--data-dir", help="folder of TensorFlow Datasets with cifar10; $TFDS_DATA_DIR by default")
    parser.add_argument("--rehearse", action="store_true", help="run everything on the CPU, with smaller networks")
    options = parser.parse_args()
    began = time.monotonic()
    work = Path(tempfile.mkdtemp(prefix="gpu-check-"))
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "log.txt").unlink(missing_ok=True)
    data_dir = str(Path(options.data_dir).absolute()) if options.data_dir else None
    deadline = began + 60 * options.minutes
    check = Check(options.output.absolute(), work, options.rehearse, deadline, data_dir)
    check.environment = {"XDG_CACHE_HOME": str(work / "cache"), "COLUMNS": "200", "PYTHONUNBUFFERED": "1"}
    if options.rehearse:
        check.environment["CUDA_VISIBLE_DEVICES"] = "-1"
    try:
        return run_parts(check, options.minutes / MINUTES)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def run_parts(check: Check, share: float) -> int:
    """Run the parts, each within its share of the time."""
    writing = Lock()

    def part(name: str, seconds: float, call: Callable[[float], dict[str, Any]]) -> dict[str, Any]:
        began, seconds = time.monotonic(), min(seconds, check.left() - RESERVE)
        if seconds < 5:
            return {}
        say(f"{name} (at most {seconds:.0f} s)")
        try:
            found = call(seconds)
        except Exception as error:  # One part that fails here should not keep the others from running.
            found = {"ok": False, "summary": f"the check itself failed: {type(error).__name__}: {error}"}
        with writing:
            check.found[name] = found
            (check.output / "gpu.json").write_text(as_json(check.found), encoding="utf-8")
            write_page(check)
        check.log(f"\n== {name} took {time.monotonic() - began:.0f} s\n")
        say(
            f"  {'as expected' if found['ok'] else 'NOT AS EXPECTED'} after {time.monotonic() - began:.0f} s: "
            f"{found['summary']}"
        )
        return found

    machine = part("machine", 60, lambda seconds: parts.machine(check))
    if not machine.get("ok"):
        say("TensorFlow sees no GPU: install tensorflow[and-cuda], or rehearse on the CPU with --rehearse")
        return 2
    memory = machine.get("memory_bytes")
    if check.rehearse:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    # These measure no time, so that a machine with many cores does them side by side.
    with ThreadPoolExecutor(3 if (os.cpu_count() or 1) >= 8 else 1) as pool:
        for name, seconds, call in (
            ("steps", STEPS_SECONDS, parts.steps),
            ("resume", RESUME_SECONDS, parts.resume),
            ("shared_gpu", SHARED_SECONDS, parts.shared_gpu),
        ):
            pool.submit(part, name, seconds * share, partial(call, check))
    part("rates", RATES_SECONDS * share, partial(rates, check))
    part("too_large", TOO_LARGE_SECONDS * share, lambda seconds: parts.too_large(check, seconds, memory))
    found = part("long_run", check.left() - RESERVE, lambda seconds: long_run(check))
    if "screen" in found:
        check.found["screen"] = found["screen"]
    write_page(check)
    say(f"See {check.output / 'gpu.md'}")
    return 0 if all(each["ok"] for each in check.found.values()) and len(check.found) == 8 else 1


sys.exit(main())
