"""A study as one finds it while it is being made."""

import json
from pathlib import Path

from support.fake_runs import fake_run

from rotnet_keras.config.loading import to_toml
from rotnet_keras.runs.launch import create_run, load_for_run

STUDY = """
kind = "study"
title = "tiny study"
paper = "Table 1"
[scales.full]
note = "small"
recipes = { pretrain = "quickstart" }
seeds = [0, 1]
[[run]]
name = "rotnet"
recipe = "pretrain"
[[run]]
name = "wide"
recipe = "pretrain"
set = { backbone = { width = 1.0 } }
[[table]]
title = "What came out, %"
entry = [{ row = "rotation", run = "rotnet", column = "test", paper = 91.1 }]
"""


def fake_study(runs_dir):
    """A study of two runs with two seeds each; of the first seed one has finished, and one is being made."""
    Path("study.toml").write_text(STUDY)
    recipe, facts = load_for_run("study.toml", {}, runs_dir)
    done = fake_run(runs_dir, "rotnet-s0", outcome="finished")
    fake_run(runs_dir, "wide-s0", epochs=2, alive=True)
    run = create_run(runs_dir, "study", to_toml(recipe), {**facts, "pid": 1, "since_boot": 1.0, "steps": 4})
    measured = {"name": "rotnet", "seed": 0, "folder": done.name, "seconds": 1200.0, "measures": [{"value": 0.915}]}
    events = [{"kind": "run", "time": 2.0, "step": 1, **measured}]
    run.events_file.write_text("".join(json.dumps(event) + "\n" for event in events))
    return run
