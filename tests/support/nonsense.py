"""Run folders that make no sense, as a stranger may send them."""

import json
import os
import shutil
import stat

from support.fake_runs import NOW, fake_run

from rotnet_keras.runs.events import MAX_LINE_BYTES
from rotnet_keras.runs.folder import RunFolder

END = {"kind": "end", "time": NOW, "outcome": "finished", "exit_code": 0, "message": "[/] [red]$x$[/"}


def _events(*events):
    return lambda run: run.events_file.write_text("".join(json.dumps(event) + "\n" for event in events))


def _append(content):
    def change(run):
        with run.events_file.open("ab") as file:
            file.write(content)

    return change


def _facts(**facts):
    return lambda run: run.facts_file.write_text(json.dumps(run.facts() | facts))


def _text(name, text):
    return lambda run: (run.path / name).write_text(text)


def _pipe(name):
    def change(run):
        (run.path / name).unlink()
        os.mkfifo(run.path / name)

    return change


def _device(name):
    """A device that never ends, or a link to it for users who may not make one."""

    def change(run):
        (run.path / name).unlink()
        try:
            os.mknod(run.path / name, stat.S_IFCHR | 0o600, os.makedev(1, 5))
        except PermissionError:
            (run.path / name).symlink_to("/dev/zero")

    return change


def _folder(name):
    def change(run):
        (run.path / name).unlink()
        (run.path / name).mkdir()

    return change


def _step(**values):
    known = {"kind": "step", "time": NOW, "step": 1, "epoch": 0.1, "loss": 1.0, "accuracy": 0.5}
    return {**known, "learning_rate": 0.1, "images_per_s": 1.0, "data_wait": 0.0, **values}


def _epoch(**validation):
    values = {"accuracy": 0.5, "loss": 1.0, "confusion": [[1] * 4] * 4, **validation}
    return {**_step(), "kind": "epoch", "validation": values}


WRONG = ("text", [], {}, None, True, -1, 1e300, float("nan"), 10**30, [[[]]])

MARKUP = (
    _facts(data={"classes": ["[/]", "[b", "$", "x"]}, recipe="[/]", device="[red]", host="[/"),
    _append(b'{"kind":"warning","time":1,"message":"[/]"}\n'),
    _append(json.dumps({**END, "outcome": "[/]"}).encode() + b"\n"),
    _text("log.txt", "[/] Error: [red]\n"),
)
# What is done to a run that has ended, by the name of the folder.
NONSENSE = {
    "deep_facts": _text("run.json", "[" * 200_000),
    "nested_facts": _text("run.json", '{"data": ' + '{"a": ' * 500 + "1" + "}" * 501),
    "list_of_facts": _text("run.json", "[1, 2]"),
    "huge_number": _text("run.json", '{"steps": ' + "9" * 5000 + "}"),
    "deep_recipe": _text("recipe.toml", "x = " + "[" * 100_000),
    "dotted_key": _text("recipe.toml", "a." * 20_000 + "b = 1\n"),
    "dotted_inline": _text("recipe.toml", "x = {" + "a." * 20_000 + "b = 1}\n"),
    "dotted_table": _text("recipe.toml", "[" + "a." * 20_000 + "b]\n"),
    "long_recipe": _text("recipe.toml", 'title = "' + "x" * 2_000_000 + '"\n'),
    "not_text": lambda run: run.recipe.write_bytes(os.urandom(1000)),
    **{f"pipe_{name}": _pipe(name) for name in ("run.json", "recipe.toml", "events.jsonl", "log.txt")},
    **{f"device_{name}": _device(name) for name in ("run.json", "recipe.toml", "events.jsonl", "log.txt")},
    **{f"folder_{name}": _folder(name) for name in ("run.json", "recipe.toml", "events.jsonl", "log.txt")},
    **{f"facts_{n}": _facts(data=wrong, steps=wrong, created=wrong, pid=wrong) for n, wrong in enumerate(WRONG)},
    **{f"classes_{n}": _facts(data={"classes": wrong, "train": wrong}) for n, wrong in enumerate(WRONG)},
    "format": _facts(format="[/]", overrides={"[/a": "[b]"}, host=[1], recipe="[/", device="[red", queued=1),
    "wrong_recipe": _text("recipe.toml", 'kind = 5\ndata = "x"\ntrain = [1]\nprobe = 3\nrotation = "[/"\n'),
    "wrong_task": _text("recipe.toml", 'kind = "transfer"\ntask = "[/]"\n[data]\nname = 1\n'),
    "wrong_study": _text("recipe.toml", 'kind = "study"\ntable = [1]\nfinding = "x"\n'),
    **{f"steps_{n}": _events(_step(), _step(step=wrong, loss=wrong, accuracy=wrong)) for n, wrong in enumerate(WRONG)},
    **{f"times_{n}": _events(_step(time=wrong), END) for n, wrong in enumerate(WRONG)},
    **{f"epochs_{n}": _events(_epoch(confusion=wrong, accuracy=wrong), END) for n, wrong in enumerate(WRONG)},
    **{f"outcome_{n}": _events(_step(), {**END, "outcome": wrong}) for n, wrong in enumerate((*WRONG, "[/]", "[/red"))},
    "no_message": _events(_step(), {"kind": "end", "time": NOW, "outcome": "failed"}),
    "markup": _events(_step(), END),
    "probes": _events(_step(), {"kind": "probe", "time": NOW, "step": 1, "weights": "rotnet"}, END),
    "samples": _events(_step(), {"kind": "samples", "time": NOW, "step": 1, "file": "[/", "tile": 1e9, "tiles": [1]}),
    "suitability": _events(_step(), {"kind": "suitability", "time": NOW, "right": 3}, END),
    "deep_event": _append(b'{"kind":"end","time":1,"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n"),
    "surrogates": _append(b'{"kind":"warning","time":1,"message":"\\ud800\\u0000\\u001b[2J"}\n'),
    "no_end_of_line": _append(b"x" * (MAX_LINE_BYTES + 5)),
    "long_line": _append(b'{"kind":"end","time":1,"x":"' + b"x" * 2 * MAX_LINE_BYTES + b'"}\n'),
    "[b]bold[": lambda run: [change(run) for change in MARKUP],
    "--help": _append(b""),
    "a b;touch x": _append(b""),
}


def make_nonsense(runs_dir, names=None):
    """Make such folders, all or some, beside one that is as it should be, called "good"; returns their names."""
    fake_run(runs_dir, "good", epochs=2, outcome="finished")
    made = list(names or NONSENSE)
    ended = fake_run(runs_dir, "ended", epochs=1, outcome="finished")
    for name in made:
        run = RunFolder(runs_dir / name)
        shutil.copytree(ended.path, run.path)
        NONSENSE[name](run)
    shutil.rmtree(ended.path)
    return made
