"""The check of a machine with a GPU, `scripts/gpu_check.sh`: rehearsed on the CPU."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def modules(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import gpu_check.page
    import gpu_check.parts
    import gpu_check.processes

    return gpu_check


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("NVIDIA H200", "H200"),
        ("NVIDIA A100-SXM4-80GB", "A100-80"),
        ("NVIDIA A100-SXM4-40GB", "A100"),
        ("Tesla V100-SXM2-16GB", "V100"),
        ("NVIDIA GeForce RTX 4090", "RTX4090"),
        ("NVIDIA L4", "L4"),
        ("AMD Instinct", None),
    ],
)
def test_a_driver_s_name_leads_to_the_data_sheet(modules, name, expected):
    found = modules.page.data_sheet(name)
    assert (found and found.name) == expected


def steps(losses, **others):
    return {"kind": "k", "losses": losses, "skipped": 0, "random": False, "seconds": 1, **others}


def test_losses_are_compared_with_the_cpu_s(modules):
    compared = modules.parts._compared
    reference = {"k": {"losses": [2.0] * 10}}
    assert compared(steps([2.0] * 10), ("float32", "plain"), reference)["ok"]
    assert not compared(steps([2.02] * 10), ("float32", "plain"), reference)["ok"]
    assert compared(steps([2.02] * 10), ("mixed_bfloat16", "plain"), reference)["ok"]
    assert not compared(steps([2.0] * 9 + [3.0]), ("mixed_float16", "plain"), reference)["ok"]
    # A step that float16 skipped delays those after it; random numbers are others under XLA; NaN never passes.
    assert compared(steps([2.0] * 9 + [3.0], skipped=1), ("mixed_float16", "plain"), reference)["ok"]
    assert compared(steps([2.5] * 10, random=True), ("float32", "xla"), reference)["ok"]
    assert not compared(steps([2.5] * 10, random=True), ("float32", "plain"), reference)["ok"]
    assert not compared(steps([2.0] * 9 + [float("nan")]), ("float32", "plain"), reference)["ok"]
    assert not compared({"kind": "k", "error": "no kernel", "random": False}, ("float32", "plain"), reference)["ok"]
    assert not compared(steps([2.0] * 10), ("float32", "plain"), {})["ok"]


def test_the_page_says_what_was_seen_and_what_was_not_reached(modules, tmp_path):
    check = modules.processes.Check(tmp_path, tmp_path, False, time.monotonic(), None)
    check.found["machine"] = {"ok": True, "summary": "sees a | GPU", "name": "NVIDIA H200"}
    check.found["resume"] = {"ok": False, "summary": "differs"}
    modules.page.write_page(check)
    text = (tmp_path / "gpu.md").read_text()
    assert "On NVIDIA H200" in text and "| yes | sees a \\| GPU |" in text
    assert "| **no** | differs |" in text and text.count("not reached") == 6


def test_a_process_that_takes_too_long_is_ended_and_its_output_kept(modules, tmp_path):
    check = modules.processes.Check(tmp_path, tmp_path, True, time.monotonic() + 100, None)
    code = "import time; print('{\"kinds\": 3}', flush=True); time.sleep(60)"
    ended, output = modules.processes.python(check, "-c", code, seconds=0.5)
    assert ended == 124 and modules.processes.json_lines(output) == [{"kinds": 3}]


@pytest.mark.slow
def test_every_kind_of_step_is_the_same_under_xla(modules, tmp_path):
    """What a TPU and a GPU without determinism need."""
    check = modules.processes.Check(tmp_path, tmp_path, True, time.monotonic() + 2400, None)
    check.environment |= {"CUDA_VISIBLE_DEVICES": "-1", "PYTHONPATH": str(ROOT / "scripts")}
    found = {}
    for mode in ("plain", "xla"):
        _, output = modules.processes.python(check, "-m", "gpu_check.steps", "float32", mode, seconds=1200)
        header, *rows = modules.processes.json_lines(output)
        found[mode] = {row["kind"]: row for row in rows}
        assert len(rows) == header["kinds"], output
    # A batch in parts is refused on a TPU, and compiled by nobody on a GPU.
    assert found["plain"].keys() - found["xla"].keys() == {"pretraining in two parts"}
    for row in found["xla"].values():
        compared = modules.parts._compared(row, ("float32", "xla"), found["plain"])
        assert compared["ok"], compared


@pytest.mark.slow
def test_the_whole_check_is_rehearsed_on_the_cpu(tmp_path):
    command = [ROOT / "scripts" / "gpu_check.sh", "--rehearse", "--minutes", "40", "--output", tmp_path / "found"]
    result = subprocess.run(
        command,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHON": sys.executable},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=2700,
        check=False,
    )
    page = (tmp_path / "found" / "gpu.md").read_text()
    assert result.returncode == 0, result.stdout + result.stderr + page
    found = json.loads((tmp_path / "found" / "gpu.json").read_text())
    assert len(found["steps"]["rows"]) == 21 and all(row["ok"] for row in found["steps"]["rows"])
    assert "equal to the bit" in found["resume"]["summary"] and len(found["rates"]["rows"]) == 6
    assert "**no**" not in page and "not reached" not in page
    assert sorted(path.name for path in (tmp_path / "found").iterdir()) == [
        "cifar.html",
        "gpu.json",
        "gpu.md",
        "log.txt",
        "system.svg",
    ]
