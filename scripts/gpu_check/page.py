"""The page `gpu.md`: what was seen, then the figures."""

import shlex
import sys
import time
from typing import Any

from gpu_check.parts import TOLERANCES
from gpu_check.processes import Check
from rotnet_keras.planning.hardware import DEVICES, Device
from rotnet_keras.text import percent

TITLES = {
    "machine": "Device and versions",
    "steps": "Steps of every kind",
    "resume": "A run that is stopped and resumed",
    "shared_gpu": "Two processes of one training on one GPU",
    "too_large": "A batch that is too large",
    "rates": "Rates of steps",
    "long_run": "CIFAR-10 for the rest of the time",
    "screen": "System tab of the terminal UI",
}


def write_page(check: Check) -> None:
    """Write what is known so far."""
    found = check.found
    device = found.get("machine", {}).get("name") or "CPU"
    where = "Rehearsal on a CPU: nothing here was seen on a GPU" if check.rehearse else f"On {device}"
    lines = [f"# What a GPU does with rotnet-keras\n\n{where}, {time.strftime('%Y-%m-%d')}. Made by:\n"]
    lines += [f"```sh\nscripts/gpu_check.sh {shlex.join(sys.argv[1:])}".rstrip(), "```\n"]
    lines += ["| part | as expected | what was seen |", "| --- | --- | --- |"]
    for name, title in TITLES.items():
        part = found.get(name)
        verdict = "not reached" if part is None else "yes" if part["ok"] else "**no**"
        lines.append(f"| {title} | {verdict} | {_cell(part['summary']) if part else ''} |")
    for name, section in SECTIONS.items():
        if name in found:
            lines += [f"\n## {TITLES[name]}\n", *section(found[name], found)]
    (check.output / "gpu.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _machine(part: dict[str, Any], found: dict[str, Any]) -> list[str]:
    built = part.get("built for") or {}
    rows = [("driver", part.get("driver")), ("CUDA", built.get("cuda_version")), ("cuDNN", built.get("cudnn_version"))]
    rows += [("GPU", ", ".join(f"{k} {v}" for k, v in gpu.items())) for gpu in part.get("gpus", [])]
    memory = part.get("memory_bytes")
    rows += [("memory", f"{memory / 2**30:.1f} GiB")] if memory else []
    text = "\n".join(f"{name}: {value}" for name, value in rows if value)
    return ["```text", f"{text}\n{part.get('doctor', '')}".strip(), "```"]


def _steps(part: dict[str, Any], found: dict[str, Any]) -> list[str]:
    limits = "; ".join(f"{name} {a:g} and {b:g}" for name, (a, b) in TOLERANCES.items())
    lines = [
        "Difference of the losses from the CPU's in float32, as a share of its first loss: of the first step, and the "
        f"largest of ten. Expected at most: {limits}. Where random numbers are others under XLA, more. Without XLA "
        "operations are deterministic, with it they are not.\n",
        "| kind | precision | XLA | first step | ten steps | skipped | seconds | |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | --- |",
    ]
    for row in part["rows"]:
        start = f"| {row['kind']} | {row['precision']} | {'on' if row['xla'] else 'off'} |"
        if "error" in row:
            lines.append(f"{start} | | | | **{_cell(row['error'])}** |")
            continue
        figures = f" {row['first']:.1e} | {row['most']:.1e} | {row['skipped']} | {row['seconds']:.0f} |"
        lines.append(f"{start}{figures} {'' if row['ok'] else '**more than expected**'} |")
    return lines


def _rates(part: dict[str, Any], found: dict[str, Any]) -> list[str]:
    sheet = data_sheet(found.get("machine", {}).get("name") or "")
    name = f"{sheet.name}'s data sheet" if sheet else "a data sheet (this device has none here)"
    lines = [
        "Images in memory, none decoded; one round of some seconds each. Shares of the peak are of a measured matrix "
        f"product and of {name}. Waiting is the process's: a GPU may have been at work meanwhile.\n",
        "| recipe | batch | precision | deterministic | XLA | images/s | ms a step | of the product | of the sheet | "
        "waiting | first step |",
        "| --- | ---: | --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in part["rows"]:
        if "error" in row:
            lines.append(f"| {row['recipe']} | | | {row['deterministic']} | | **{_cell(row['error'])}** | | | | | |")
            continue
        product = percent(row["gflops"] / row["product_gflops"])
        settings = f"{row['precision']} | {'yes' if row['deterministic'] else 'no'} | {'on' if row['xla'] else 'off'}"
        lines.append(
            f"| `{row['recipe']}`, {row['side']} pixels, {row['copies']} rotations | {row['batch']} | {settings} "
            f"| {row['images_per_s']:,.0f} | {row['ms_per_step']:.1f} | {product} "
            f"| {percent(_share_of(sheet, row))} | {percent(row['data_wait'])} | {row['first_step_s']:.0f} s |"
        )
    return lines


def _share_of(sheet: Device | None, row: dict[str, Any]) -> float | None:
    if sheet is None:
        return None
    return row["gflops"] / 1000 / (sheet.float32_tflops if row["precision"] == "float32" else sheet.float16_tflops)


def _message(part: dict[str, Any], found: dict[str, Any]) -> list[str]:
    return [part["summary"] + ".", *(["\n```text", part["message"], "```"] if part.get("message") else [])]


def _long_run(part: dict[str, Any], found: dict[str, Any]) -> list[str]:
    rate = part.get("images_per_s")
    lines = [
        f"Recipe `cifar_cpu_2h` on {part['data']}, {part.get('precision')}, "
        f"{'stopped when the time was up' if part['stopped'] else 'to its end'}: {part['seconds']:.0f} s with start "
        f"and end, {f'{rate:,.0f}' if rate else 'no'} images/s (median of step events), "
        f"{percent(part.get('data_wait')) or 'unknown share'} of the time waiting for images at the end.\n",
        "| epoch | training accuracy | validation accuracy |",
        "| ---: | ---: | ---: |",
    ]
    lines += [
        f"| {e['epoch']:g} | {percent(e['train'])} | {percent(e['validation'])} |" for e in part.get("epochs", [])
    ]
    for test in part.get("tests", []):
        lines.append(f"\nRotation accuracy on test: {percent(test['accuracy'])}.")
    if part.get("probes"):
        lines += ["\n| probe | tap | weights | test top-1 |", "| --- | --- | --- | ---: |"]
        lines += [f"| {p['head']} | {p['tap']} | {p['weights']} | {percent(p['top1'])} |" for p in part["probes"]]
    return lines


SECTIONS = {
    "machine": _machine,
    "steps": _steps,
    "resume": _message,
    "shared_gpu": _message,
    "too_large": _message,
    "rates": _rates,
    "long_run": _long_run,
    "screen": _message,
}


def data_sheet(name: str) -> Device | None:
    """The data sheet of a GPU by the driver's name for it, such as "NVIDIA A100-SXM4-80GB"; None if there is none."""
    plain = name.upper().replace(" ", "")
    fitting = [key for key in DEVICES if key.split("-")[0].upper() in plain]
    if not fitting:
        return None
    large = [key for key in fitting if key.endswith("-80") and "80GB" in plain]
    longest = max(len(key.split("-")[0]) for key in fitting)
    plain_ones = [key for key in fitting if "-" not in key and len(key) == longest]
    return DEVICES[(large or plain_ones or fitting)[0]]


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")[:300]
