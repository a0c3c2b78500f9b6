"""The parts of the check but the rates and the long run. Each returns its results and whether they are as expected."""

import json
import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from gpu_check.processes import Check, command_line, end, json_lines, python, start
from rotnet_keras.runs.folder import RunFolder

MACHINE = """
import json
from rotnet_keras.engine import keras, tf
found = {"tensorflow": tf.__version__, "keras": keras.__version__, "built for": dict(tf.sysconfig.get_build_info())}
found["gpus"] = []
for gpu in tf.config.list_physical_devices("GPU"):
    found["gpus"].append({k: str(v) for k, v in tf.config.experimental.get_device_details(gpu).items()})
try:
    import pynvml
    pynvml.nvmlInit()
    found["driver"] = str(pynvml.nvmlSystemGetDriverVersion())
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    found["memory_bytes"] = int(pynvml.nvmlDeviceGetMemoryInfo(handle).total)
    found["name"] = str(pynvml.nvmlDeviceGetName(handle))
except Exception as error:
    found["driver"] = f"not readable: {error}"
print(json.dumps(found, default=str))
"""
# Steps are made in these precisions, without and with XLA.
MODES = [(p, x) for x in ("plain", "xla") for p in ("float32", "mixed_bfloat16", "mixed_float16")]
# The largest difference from the CPU's losses in float32, as a share of its first loss: of the first step, and of any
# of the ten. Float32 may be TF32 on a GPU. Differences grow from step to step.
TOLERANCES = {"float32": (0.005, 0.1), "mixed_bfloat16": (0.05, 0.25), "mixed_float16": (0.05, 0.25)}
# XLA draws other random numbers; what depends on them is only held to this.
OTHER_NUMBERS = 0.6
RESUMED = """\
kind = "pretrain"
title = "a run that is stopped and resumed"
[data]
name = "fashion_mini"
[augment]
pad = 2
flip = true
jitter = 0.2
[backbone]
name = "compact"
width = 0.5
[optimizer]
ema = 0.9
[schedule]
name = "one_cycle"
[train]
steps = 40
batch = 64
log_every = 1
"""
STOP_STEP = 17
# The first feature map of an image's rotated copies in the network below: 4 x 32 x 32 x 512 numbers of four bytes.
MAP_BYTES = 4 * 32 * 32 * 512 * 4
TOO_LARGE = """\
kind = "pretrain"
title = "a batch that is too large"
[data]
name = "{images}"
validation = 0
[backbone]
name = "compact"
blocks = 2
width = 16.0
[train]
steps = 2
batch = {batch}
precision = "float32"
"""


def machine(check: Check) -> dict[str, Any]:
    """Versions, the driver, and what TensorFlow sees."""
    _, output = python(check, "-c", MACHINE, seconds=60)
    found = (json_lines(output) or [{}])[0]
    gpus = found.get("gpus", [])
    _, doctor = command_line(check, "doctor", seconds=60)
    ok = bool(found) and (check.rehearse or bool(gpus))
    seen = ", ".join(gpu.get("device_name", "?") for gpu in gpus) or "no GPU"
    return {"ok": ok, "summary": f"TensorFlow {found.get('tensorflow')} sees {seen}", **found, "doctor": doctor}


def steps(check: Check, seconds: float) -> dict[str, Any]:
    """Ten steps of every kind in every precision, without and with XLA, against the CPU's in float32."""
    few = ["few"] if check.rehearse else []
    began = time.monotonic()

    def run(mode: tuple[str, str], **environment: str) -> list[dict[str, Any]]:
        left = seconds - (time.monotonic() - began)
        if left < 5:
            return []
        return json_lines(python(check, "-m", "gpu_check.steps", *mode, *few, seconds=left, **environment)[1])

    with ThreadPoolExecutor(4 if (os.cpu_count() or 1) >= 8 else 2) as pool:
        reference = pool.submit(run, MODES[0], CUDA_VISIBLE_DEVICES="-1")
        others = {mode: pool.submit(run, mode) for mode in MODES}
        by_kind = {row["kind"]: row for row in reference.result() if "kind" in row}
        found = {mode: future.result() for mode, future in others.items()}
    rows = [_compared(row, mode, by_kind) for mode, lines in found.items() for row in lines if "kind" in row]
    # A process says first how many kinds it will try; one that said nothing has failed at least once.
    expected = sum(lines[0].get("kinds", 1) if lines else 1 for lines in found.values())
    off = [row for row in rows if not row["ok"]]
    missing = expected - len(rows)
    text = f"{len(rows) - len(off)} of {expected} within their tolerance"
    text += f", {missing} not reached" if missing else ""
    return {"ok": not off and not missing, "summary": text, "rows": rows, "reference": list(by_kind.values())}


def _compared(row: dict[str, Any], mode: tuple[str, str], reference: dict[str, Any]) -> dict[str, Any]:
    precision, xla = mode
    found = {"kind": row["kind"], "precision": precision, "xla": xla == "xla", "device": row.get("device")}
    if "error" in row:
        return {**found, "ok": False, "error": row["error"]}
    cpu = reference.get(row["kind"], {}).get("losses")
    if cpu is None:
        return {**found, "ok": False, "error": "there are no losses of the CPU to compare with"}
    losses, cpu = np.array(row["losses"]), np.array(cpu)
    differences = np.abs(losses - cpu) / abs(cpu[0])
    first, any_step = TOLERANCES[precision]
    if row["random"] and xla == "xla":
        first = any_step = OTHER_NUMBERS
    # A step whose gradients overflow in float16 is skipped, and the ones after it are late.
    counted = differences[:1] if row["skipped"] else differences
    ok = bool(np.isfinite(losses).all() and differences[0] <= first and counted.max() <= any_step)
    figures = {"first": float(differences[0]), "most": float(differences.max()), "skipped": row["skipped"]}
    return {**found, "ok": ok, **figures, "seconds": row["seconds"], "losses": row["losses"]}


def resume(check: Check, seconds: float) -> dict[str, Any]:
    """A run that is stopped and resumed against one that is not: equal to the bit, or where they first differ."""
    recipe = check.work / "resumed.toml"
    recipe.write_text(RESUMED)
    until = time.monotonic() + seconds

    def run(name: str, *module: str) -> int:
        words = ("run", str(recipe), "--name", name, "--runs-dir", str(check.work / "runs"))
        return python(check, "-m", *module, *words, seconds=until - time.monotonic())[0]

    codes = [run("whole", "rotnet_keras"), run("stopped", "gpu_check.interrupted", str(STOP_STEP))]
    again = ("resume", "stopped", "--runs-dir", str(check.work / "runs"))
    codes.append(command_line(check, *again, seconds=until - time.monotonic())[0])
    if codes != [0, 143, 0]:
        return {"ok": False, "summary": f"exit codes {codes} where 0, 143 and 0 were expected; see log.txt"}
    whole, stopped = (RunFolder(check.work / "runs" / name) for name in ("whole", "stopped"))
    precision = whole.facts().get("precision")
    found = _difference(whole, stopped)
    if not found:
        return {"ok": True, "summary": f"equal to the bit in {precision}", "precision": precision}
    # Do two runs differ that nobody stopped?
    text = f"differs in {precision}: {found}"
    if until - time.monotonic() > 20 and run("again", "rotnet_keras") == 0:
        other = _difference(whole, RunFolder(check.work / "runs" / "again"))
        text += f". Two uninterrupted runs {f'differ too: {other}' if other else 'are equal'}"
    return {"ok": False, "summary": text, "precision": precision}


def _difference(run: RunFolder, other: RunFolder) -> str:
    """The first step whose loss differs, and the first array of the last checkpoints; empty if all are equal."""
    losses = [{e["step"]: e["loss"] for e in each.events() if e["kind"] == "step"} for each in (run, other)]
    steps = sorted(losses[0].keys() | losses[1].keys())
    found = []
    for step in steps:
        a, b = (each.get(step) for each in losses)
        if a != b:
            found.append(f"the loss of step {step} is {a} and {b}")
            break
    newest = [max(each.checkpoints.glob("step-*.npz")) for each in (run, other)]
    with np.load(newest[0]) as first, np.load(newest[1]) as second:
        for name in first.files:
            if name != "progress" and first[name].tobytes() != second[name].tobytes():
                a, b = first[name].astype(np.float64), second[name].astype(np.float64)
                found.append(f"array {name} {a.shape} of the last checkpoint by up to {np.abs(a - b).max():.3g}")
                break
    return "; ".join(found)


def shared_gpu(check: Check, seconds: float) -> dict[str, Any]:
    """Two processes of one training on one GPU: refused with a message, not left to hang."""
    ports = []
    for _ in range(2):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports.append(f"127.0.0.1:{free.getsockname()[1]}")
    module = "gpu_check.pretended" if check.rehearse else "rotnet_keras"
    words = ("-m", module, "run", "quickstart", "probe=[]", "train.steps=3", "--name", "shared")
    until = time.monotonic() + seconds
    processes = []
    for index in range(2):
        cluster = {"cluster": {"worker": ports}, "task": {"type": "worker", "index": index}}
        processes.append(start(check, *words, TF_CONFIG=json.dumps(cluster), PRETENDED="gpu"))
    while all(process.poll() is None for process in processes) and time.monotonic() < until:
        time.sleep(0.2)
    # The other one notices by itself where the machine alone tells, and else waits for the one that was refused.
    ends = [end(process, 8.0 if time.monotonic() < until else 0.1) for process in processes]
    check.log("\n".join(f"== process {i}: exit code {code}\n{output}" for i, (code, output) in enumerate(ends)))
    refused = [output for code, output in ends if code == 2 and "GPU" in output]
    if not refused:
        return {"ok": False, "summary": f"no process was refused; exit codes {[code for code, _ in ends]}; see log.txt"}
    lines = [line for line in refused[0].splitlines() if "GPU" in line and ("TF_CONFIG" in line or "devices" in line)]
    return {"ok": True, "summary": f"{len(refused)} of 2 refused", "message": lines[-1] if lines else ""}


def too_large(check: Check, seconds: float, memory_bytes: int | None) -> dict[str, Any]:
    """A batch that does not fit: the message names the batch to try next."""
    if not memory_bytes:
        return {"ok": False, "summary": "not tried: the size of the memory is not known"}
    # TensorFlow's convolutions on a CPU crash where memory runs out. A rehearsal trains with a step that asks for more.
    batch = 4 if check.rehearse else int(1.5 * memory_bytes / MAP_BYTES) + 1
    module = "gpu_check.pretended" if check.rehearse else "rotnet_keras"
    images = check.work / "images.npz"
    pixels = np.zeros((batch, 32, 32, 3), np.uint8)
    np.savez(images, x_train=pixels)
    recipe = check.work / "too_large.toml"
    recipe.write_text(TOO_LARGE.format(images=images, batch=batch))
    words = ("run", str(recipe), "--name", "too_large", "--runs-dir", str(check.work / "runs"))
    code, output = python(check, "-m", module, *words, seconds=seconds, PRETENDED="memory")
    ok = code == 1 and "out of memory" in output and f"train.batch={batch // 2}" in output
    advice = [line for line in output.splitlines() if "train.batch=" in line]
    return {"ok": ok, "summary": f"batch {batch:,}: exit code {code}", "message": advice[-1][-400:] if advice else ""}
