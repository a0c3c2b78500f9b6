"""Why a run failed: the answer names the cause, and commands that work."""

import json
import shlex
import time

import pytest
from support.command_line import invoke
from support.fake_runs import fake_run

from rotnet_keras.config.loading import load_recipe, parse_override
from rotnet_keras.runs.diagnosis import diagnose

OOM = "Error: ResourceExhaustedError: OOM when allocating tensor with shape[256,96,32,32] on /GPU:0 (more in log.txt)"


def change(run, *events):
    """Put events before the end event of a run, or after its last one."""
    lines = run.events_file.read_text().splitlines()
    end = [lines.pop()] if '"kind":"end"' in lines[-1] else []
    lines += [json.dumps(event, separators=(",", ":")) for event in events]
    run.events_file.write_text("\n".join([*lines, *end, ""]))


def changed_recipe(command):
    """The recipe of a proposed new run."""
    _, verb, path, *overrides = shlex.split(command)
    assert verb == "run"
    return load_recipe(path, dict(map(parse_override, overrides)))


def failed(runs_dir, message, code=1, *overrides):
    run = fake_run(runs_dir, "one", *overrides, epochs=2, outcome="failed", message=message)
    if code != 1:
        text = run.events_file.read_text()
        run.events_file.write_text(text.replace('"exit_code":0', f'"exit_code":{code}'))
    return run


def test_a_loss_that_is_no_number(runs_dir):
    run = failed(
        runs_dir, "Error: the loss became nan by step 130 at learning rate 0.3", 1, "optimizer.learning_rate=0.3"
    )
    step = {"kind": "step", "time": 1.7e9, "epoch": 2.0, "accuracy": 0.3, "learning_rate": 0.3, "images_per_s": 1.0}
    change(run, *(step | {"step": 121 + n, "loss": 1.5, "gradient_norm": 2.0 * 9**n} for n in range(3)))
    found = diagnose(run)
    assert found.cause == "diverged"
    assert "last known loss was 1.5 in step 123" in found.text and "grown from 2 to 162" in found.text
    assert changed_recipe(found.commands[0]).optimizer.learning_rate == pytest.approx(0.1)
    assert changed_recipe(found.commands[1]).optimizer.clip == 1


def test_no_more_memory_by_an_error_and_by_the_system(runs_dir):
    found = diagnose(failed(runs_dir, OOM))
    assert found.cause == "out of memory" and "256 inputs at once, of 64 images" in found.text
    assert changed_recipe(found.commands[0]).train.accumulate == 2
    assert changed_recipe(found.commands[1]).train.batch == 32
    killed = fake_run(runs_dir, "killed", epochs=2)
    load = {"kind": "system", "time": 1.7e9, "memory": 20 * 2**30, "machine_memory": 23.5 * 2**30}
    change(killed, load | {"machine_total": 24 * 2**30})
    found = diagnose(killed)
    assert found.cause == "out of memory" and "23.5 GB of 24.0 GB in use; the run had 20.0 GB" in found.text


def test_a_full_disk(runs_dir):
    run = failed(runs_dir, "Error: [Errno 28] No space left on device: 'x'. Saved files are intact.")
    found = diagnose(run)
    assert found.cause == "disk full" and "checkpoint at step 120" in found.text
    assert found.commands[0] == "rotnet-keras resume one"


def test_data_that_are_missing_or_have_changed(runs_dir):
    found = diagnose(failed(runs_dir, "Error: data.name: no folder 'photos'", 3))
    assert found.cause == "data missing" and "'fashion_mini'" in found.text
    assert changed_recipe(found.commands[0]).data.name == "PATH"
    other = failed(runs_dir, "Error: the data have changed since this run began (train: was 9, is 8)", 3)
    assert diagnose(type(other)(runs_dir / "one-2")).cause == "data changed"


def test_a_process_that_was_killed_and_a_machine_that_was_restarted(runs_dir, monkeypatch):
    run = fake_run(runs_dir, "one", epochs=2)
    monkeypatch.setattr("psutil.boot_time", lambda: 1.0)
    found = diagnose(run)
    assert found.cause == "killed" and "the machine was not full" in found.text
    assert found.commands == ("rotnet-keras resume one",)
    monkeypatch.setattr("psutil.boot_time", time.time)
    assert diagnose(run).cause == "machine restarted"


def test_any_other_end_and_runs_that_did_not_fail(runs_dir):
    found = diagnose(failed(runs_dir, "Error: KeyError: 'x' (more in log.txt)"))
    assert found.cause == "error" and "KeyError" in found.text and "traceback" in found.text
    assert found.commands == ("rotnet-keras logs one", "rotnet-keras resume one")
    fine = fake_run(runs_dir, "fine", epochs=8, outcome="finished")
    assert "It has not failed: it is finished. Learned" in diagnose(fine).text
    flat = fake_run(runs_dir, "flat", epochs=4, outcome="finished", reach=0.26)
    found = diagnose(flat)
    assert found.cause == "at chance" and changed_recipe(found.commands[0]).optimizer.learning_rate == 0.03


def test_the_command_says_it(runs_dir):
    failed(runs_dir, OOM)
    said = invoke("why", "one").stdout.splitlines()
    assert said[0] == "one: out of memory" and "What mends it:" in said
    assert said[-1].endswith("recipe.toml train.batch=32")
    assert json.loads(invoke("why", "one", "--json").stdout)["cause"] == "out of memory"
