"""CIFAR-10 by the recipe `cifar_cpu_2h` for as long as is left, watched in the terminal UI."""

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

from gpu_check.processes import Check, command_line, end, python, start
from rotnet_keras.runs.folder import RunFolder
from rotnet_keras.text import percent

# Seconds that are kept for stopping and for the report.
RESERVE = 30.0
# A rehearsal trains no longer.
REHEARSAL_SECONDS = 40.0
# The terminal UI is opened when the run has made so many step events.
WATCHED_EVENTS = 2


def long_run(check: Check) -> dict[str, Any]:
    """Train until the time is up, or to the end; the System tab is looked at meanwhile."""
    folder = check.data_dir or os.environ.get("TFDS_DATA_DIR") or str(Path("~/tensorflow_datasets").expanduser())
    words = ["run", "cifar_cpu_2h", "--name", "cifar", "--runs-dir", str(check.work / "runs")]
    if (Path(folder) / "cifar10").is_dir() and not check.rehearse:
        data = "CIFAR-10"
        words.append(f"data.data_dir={Path(folder).absolute()}")
    else:
        data = "fashion_mini, since there is no CIFAR-10" if not check.rehearse else "fashion_mini"
        words.append("data.name=fashion_mini")
    if check.rehearse:
        words += ["backbone.width=0.25", "train.log_every=2"]
    began = time.monotonic()
    until = min(check.deadline - RESERVE, began + REHEARSAL_SECONDS if check.rehearse else check.deadline)
    run, process, screen = RunFolder(check.work / "runs" / "cifar"), start(check, "-m", "rotnet_keras", *words), None
    while process.poll() is None and time.monotonic() < until:
        if screen is None and _events(run, "step") >= WATCHED_EVENTS:
            screen = _system_tab(check)
        time.sleep(0.5)
    stopped = process.poll() is None
    if stopped:
        command_line(check, "stop", "cifar", "--runs-dir", str(check.work / "runs"), seconds=10)
    code, output = end(process, min(20.0, check.left()))
    check.log(f"\n== the long run: exit code {code}\n{output}")
    found: dict[str, Any] = {"data": data, "exit_code": code, "stopped": stopped, "seconds": time.monotonic() - began}
    found["screen"] = screen or {"ok": False, "summary": "not opened: the run made no steps in time"}
    if not run.path.is_dir():
        return {**found, "ok": False, "summary": f"no run: exit code {code}; see log.txt"}
    events, facts = run.events(), run.facts()
    rates = sorted(e["images_per_s"] for e in events if e["kind"] == "step")
    epochs = [e for e in events if e["kind"] == "epoch"]
    found["images_per_s"] = rates[len(rates) // 2] if rates else None
    found["data_wait"] = next((e.get("data_wait") for e in reversed(events) if e["kind"] == "step"), None)
    found["epochs"] = [
        {"epoch": e["epoch"], "train": e["accuracy"], "validation": (e.get("validation") or {}).get("accuracy")}
        for e in epochs
    ]
    found["tests"] = [{k: e[k] for k in ("accuracy", "loss")} for e in events if e["kind"] == "test"]
    probes = [e for e in events if e["kind"] == "probe"]
    found["probes"] = [{k: e.get(k) for k in ("head", "tap", "weights", "top1")} for e in probes]
    found["precision"] = facts.get("precision")
    steps, total = max((e.get("step", 0) for e in events if e["kind"] == "step"), default=0), facts.get("steps")
    command_line(check, "report", "cifar", "--runs-dir", str(check.work / "runs"), seconds=15)
    if (run.path / "report.html").is_file():
        shutil.copy(run.path / "report.html", check.output / "cifar.html")
    last = found["epochs"][-1]["validation"] if epochs else None
    text = f"{data}: {steps:,} of {total or 0:,} steps in {found['seconds']:.0f} s"
    text += f", validation {percent(last)}" if last is not None else ""
    return {**found, "ok": steps > 0 and code in (0, 143), "summary": text}


def _events(run: RunFolder, kind: str) -> int:
    return sum(event["kind"] == kind for event in run.last_events())


def _system_tab(check: Check) -> dict[str, Any]:
    picture = check.output / "system.svg"
    environment = {"XDG_CONFIG_HOME": str(check.work), "XDG_STATE_HOME": str(check.work)}
    words = ("-m", "gpu_check.screen", str(check.work / "runs"), "cifar", str(picture))
    code, output = python(check, *words, seconds=40, **environment)
    lines = [line.strip() for line in output.splitlines() if "GPU" in line]
    expected = "no NVIDIA driver found" if check.rehearse else "GB"
    ok = code == 0 and any(expected in line for line in lines)
    return {"ok": ok, "summary": "; ".join(lines)[:300] or f"exit code {code}; see log.txt"}


def as_json(found: dict[str, Any]) -> str:
    """Results as indented JSON."""
    return json.dumps(found, indent=1, default=str)
