import json
import os
import time
from contextlib import suppress

import psutil
import pytest
from support.command_line import invoke
from support.fake_runs import work_on

from rotnet_keras.errors import RunError
from rotnet_keras.runs.folder import RunFolder
from rotnet_keras.runs.launch import create_run
from rotnet_keras.runs.processes import process_identity
from rotnet_keras.runs.status import (
    comparison_table,
    explanation,
    is_out_of_memory,
    smaller_batch_advice,
    summary,
    summary_lines,
    summary_row,
    verdict_text,
)

RECIPE = """\
kind = "pretrain"
title = "{title}"

[rotation]
angles = [0, 180]

[train]
batch = {batch}
"""
NO_SUCH_PID = 2**22 + 1


@pytest.fixture
def make(tmp_path):
    """Makes a run whose process is this one, or gone, with events that end now."""

    def make(*events, alive=True, batch=64, title="t", runs_dir="runs", **facts):
        facts |= process_identity(psutil.Process()) | ({} if alive else {"pid": NO_SUCH_PID})
        facts["host"] = os.uname().nodename
        run = create_run(tmp_path / runs_dir, "a", RECIPE.format(batch=batch, title=title), facts)
        timed = [{"time": time.time() - len(events) + i, **event} for i, event in enumerate(events)]
        run.events_file.write_text("".join(json.dumps(event) + "\n" for event in timed))
        if alive:
            work_on(run)
        return run

    return make


def step(number, **values):
    rates = {"epoch": 0.1, "learning_rate": 0.1, "images_per_s": 10.0}
    return {"kind": "step", "step": number, "loss": 0.5, "accuracy": 0.5, **rates, **values}


def epoch(number, accuracy, loss=1.0):
    validation = {"accuracy": accuracy, "loss": loss}
    return {"kind": "epoch", "step": number, "epoch": 1.0, "accuracy": accuracy, "loss": loss, "validation": validation}


def checkpoint(number):
    return {"kind": "checkpoint", "step": number}


def failed(message):
    return {"kind": "end", "outcome": "failed", "message": message}


def explained(run):
    return explanation(run, run.state(), run.last_events())


def test_a_healthy_run_needs_no_explanation(make):
    assert explained(make(step(1))) == "" and make(step(1)).state() == "running"


def test_a_killed_run_resumes_from_its_newest_checkpoint(make):
    run = make(step(10), checkpoint(10), step(20), checkpoint(20), step(25), alive=False)
    assert summary(run)["state"] == "killed"
    text = summary(run)["message"]
    assert "from step 20" in text and f"rotnet-keras resume a --runs-dir {run.path.parent}" in text


def test_a_stalled_run_is_recognised_by_its_own_pace(make):
    then = time.time() - 600
    run = make(*(step(i, time=then + 2 * i) for i in range(10)))
    assert run.state() == "stalled"
    assert "no step for 9 min 4" in explained(run) and "one every 2.0 s" in explained(run)
    assert "rotnet-keras kill a" in explained(run) and "rotnet-keras resume a" in explained(run)


@pytest.mark.parametrize("sign", ["ResourceExhaustedError: OOM when allocating", "MemoryError: ", "CUDA out of memory"])
def test_half_the_batch_is_proposed_when_memory_runs_out(make, sign):
    assert is_out_of_memory(f"Error: {sign}") and not is_out_of_memory("Error: no space left")
    text = smaller_batch_advice(make(batch=48, inputs_per_step=96))
    assert "train.batch=48 means 96 inputs per step" in text and "Try a new run with train.batch=24," in text
    assert smaller_batch_advice(make(batch=1)) == ""


def test_a_run_killed_before_its_first_step_may_have_run_out_of_memory(make):
    assert "If memory ran out: train.batch=48" in explained(make(alive=False, batch=48))
    assert "train.batch" not in explained(make(step(10), alive=False, batch=48))


def test_a_failure_is_explained_by_its_last_message(make):
    assert explained(make(failed("Error: no space left"))) == "Error: no space left"


def test_runs_side_by_side_show_last_and_best_and_what_differs(make):
    first = make(step(1), epoch(1, 0.7, 0.8), epoch(2, 0.6, 0.9), batch=32)
    second = make(step(1), batch=64)
    columns, rows = comparison_table([first, second])
    assert columns == ["", "a", "a-2"]
    assert rows == [
        ["state", "running", "running"],
        ["rotation accuracy, validation, last", "60.0 %", ""],
        ["rotation accuracy, validation, best", "70.0 %", ""],
        ["loss, validation, last", "0.900", ""],
        ["train.batch", "32", "64"],
    ]


def test_runs_with_the_same_name_are_distinguished_by_their_paths(make):
    here, there = make(title="here"), make(title="there", runs_dir="elsewhere")
    assert comparison_table([here, there])[0] == ["", str(here.path), str(there.path)]
    rows = json.loads(invoke("compare", here.path, there.path, "--json").stdout)
    assert {"": "title", str(here.path): "here", str(there.path): "there"} in rows


def test_status_judges_a_pretraining_by_its_number_of_rotations(make):
    run = make(step(1), epoch(1, 0.52))
    text = invoke("status", run.path).stdout
    assert "verdict: At chance after one epoch" in text and "(chance 50 %)" in text
    assert json.loads(invoke("status", run.path, "--json").stdout)["verdict"] in text
    assert "verdict" not in summary(run)


def test_a_run_without_steps_is_not_judged(make):
    run = make({"kind": "start"})
    assert verdict_text(run) is None and "verdict" not in invoke("status", run.path).stdout


# What a damaged disk, another program or a stranger may have left in a run folder: recipe, facts and events.
ODD = {
    "no keys": (RECIPE, {}, [{"kind": "step"}, {"kind": "probe", "weights": "rotnet", "labels_per_class": None}]),
    "no outcome": (RECIPE, {}, [{"kind": "end"}]),
    "null": (RECIPE, {}, [{**epoch(1, None), "validation": None}]),
    "other types": (RECIPE, {}, [step("x", loss=[1]), {"kind": "end", "outcome": [1], "message": {}}]),
    "facts": (RECIPE, {"created": "x", "queued": "y", "steps_per_epoch": "a", "steps": [], "host": 1}, []),
    "an age to come": (RECIPE, {"created": 1e300, "steps": float("inf")}, [step(1, loss=1e300, time=float("inf"))]),
    "recipe": ("train = [1]\n", {}, []),
    "no recipe": ("\0", {}, []),
}


def test_damaged_folders_are_listed_among_the_others_and_reported(make, tmp_path):
    good = make(step(1))
    for name, (recipe, facts, events) in ODD.items():
        folder = good.path.with_name(name)
        folder.mkdir()
        (folder / "recipe.toml").write_text(recipe)
        (folder / "run.json").write_text(json.dumps({"pid": NO_SUCH_PID, "host": os.uname().nodename, **facts}))
        (folder / "events.jsonl").write_text("".join(json.dumps({"time": 1.0, **e}) + "\n" for e in events))
    listed = invoke("runs", cwd=tmp_path)
    assert listed.returncode == 0, listed.stderr
    assert {"a", *ODD} <= {line.split("  ")[0] for line in listed.stdout.splitlines()}
    assert len(json.loads(invoke("runs", "--json", cwd=tmp_path).stdout)) == len(ODD) + 1
    for arguments in (("status",), ("report",), ("compare", "a")):
        result = invoke(*arguments, "no keys", cwd=tmp_path)
        assert "Traceback" not in result.stderr
        assert f"{good.path.with_name('no keys') / 'events.jsonl'}, line 1: step: " in result.stdout + result.stderr
    for name in ODD:
        run = RunFolder(good.path.with_name(name))
        with suppress(RunError):
            verdict_text(run)
        assert summary_lines(summary(run)) and summary_row(summary(run))


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (step(2, loss="x"), "step: loss: expected a number or null, got 'x'"),
        ({"kind": "step", "step": 2}, "step: epoch: expected a number, got nothing"),
        ({**epoch(2, 0.5), "validation": {"accuracy": [1], "loss": 1}}, "epoch: validation: expected an evaluation"),
        ({"kind": "end", "outcome": "failed"}, "end: message: expected a text, got nothing"),
    ],
)
def test_the_line_of_a_damaged_event_is_named(make, event, said):
    run = make(step(1), {"kind": "warning", "message": "w"}, event)
    for arguments in (("status",), ("compare", run.path), ("report",)):
        result = invoke(*arguments, run.path)
        assert result.returncode == 1 and len(result.stderr.splitlines()) == 1
        assert f"{run.events_file}, line 3: {said}" in result.stderr
    listed = summary(run)
    assert listed["state"] == "unknown" and f"line 3: {said}" in listed["message"]


@pytest.mark.parametrize("error", [AttributeError, KeyError, TypeError, ValueError, ZeroDivisionError])
@pytest.mark.parametrize("command", ["status", "runs", "compare"])
def test_a_mistake_of_the_program_is_not_blamed_on_the_files(make, monkeypatch, command, error):
    run = make(step(1), epoch(1, 0.5))

    def planted(*arguments):
        raise error("planted")

    monkeypatch.setattr("rotnet_keras.runs.status.score_of", planted)
    arguments = {"status": [run.path], "runs": ["--runs-dir", run.path.parent], "compare": [run.path, run.path]}
    with pytest.raises(error, match="planted"):
        invoke(command, *arguments[command])


def test_a_loss_that_is_no_number_is_compared_as_unknown(make):
    run = make(step(1), epoch(1, 0.5, loss=None))
    rows = {row[0]: row[1] for row in comparison_table([run])[1]}
    assert rows["loss, validation, last"] == "" and rows["rotation accuracy, validation, last"] == "50.0 %"
