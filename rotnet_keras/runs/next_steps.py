"""What to do after a run: commands that can be typed as they are."""

import shlex
from pathlib import Path
from typing import Any

from rotnet_keras.config.finder import shipped_recipes
from rotnet_keras.runs.folder import RunFolder, default_runs_dir
from rotnet_keras.runs.values import PLAIN_NAME


def next_steps(run: RunFolder) -> list[str]:
    """Return what can be done with the backbone of a finished run, each with its command; empty without a backbone.

    After a run on images of one's own these are commands for such images; after one on a data set that others have too,
    it is how to train on one's own.
    """
    if not run.backbone.is_file():
        return []
    values, facts = run.recipe_values(), run.facts()
    data = _own_data(values)
    if data is None:
        steps = ["train on your own images: rotnet-keras init /path/to/images"]
        name = facts.get("recipe")
        show = f"; read this one: rotnet-keras show {name}" if name in shipped_recipes() else ""
        return [*steps, f"list all recipes: rotnet-keras recipes{show}"]
    if values.get("kind") == "pretrain":
        return [*_after_pretraining(run, values, data), *_embed(run, data)]
    if (run.export / "classifier.keras").is_file() and data.is_dir():
        predict = f"{command_line('predict', run)} {_typed(data)} --to predictions.csv"
        return [f"predict the classes of images: {predict}", *_embed(run, data)]
    return _embed(run, data)


def _own_data(values: dict[str, Any]) -> Path | None:
    """Return the folder or file of images that a recipe names by its path; None for a data set with a name."""
    name = values.get("data", {}).get("name")
    if not isinstance(name, str) or not Path(name).is_absolute():
        return None
    return Path(name) / "JPEGImages" if values.get("kind") == "transfer" else Path(name)


def _after_pretraining(run: RunFolder, values: dict[str, Any], data: Path) -> list[str]:
    if not run.facts().get("data", {}).get("classes"):
        test = f"{command_line('probe', run)} --labels labels.csv"
        return [f"test with a few labels whether it helped: {test}"]
    options = runs_dir_option(run.path.parent)
    where = shlex.quote(f"data.name={data}")
    steps = []
    if not values.get("probe"):
        source = shlex.quote(f"backbone.run={run_argument(run)}")
        steps.append(f"measure the features: rotnet-keras run probe {source} {where}{options}")
    source, tap = shlex.quote(f"pretrained.run={run_argument(run)}"), run.facts().get("default_tap")
    head = f" head.tap={tap}" if tap else ""
    return [*steps, f"train a classifier: rotnet-keras run finetune {source} {where}{head}{options}"]


def _embed(run: RunFolder, data: Path) -> list[str]:
    if not data.is_dir():
        return []
    return [f"find similar images: {command_line('embed', run)} {_typed(data)} --to features.npz"]


def _typed(path: Path) -> str:
    return shlex.quote(str(path))


def command_line(command: str, run: RunFolder) -> str:
    """Return the command to type, for messages: `resume` becomes `rotnet-keras resume NAME`."""
    return f"rotnet-keras {command} {shlex.quote(run_argument(run))}{runs_dir_option(run.path.parent)}"


def run_argument(run: RunFolder) -> str:
    """Return how a command line names a run: by its name, or by its path where the name may look like an option."""
    return run.name if PLAIN_NAME.fullmatch(run.name) else str(run.path.absolute())


def runs_dir_option(runs_dir: Path) -> str:
    """Return ` --runs-dir X` for a command line; empty if X is the default."""
    if runs_dir.resolve() == default_runs_dir().resolve():
        return ""
    return f" --runs-dir {shlex.quote(str(runs_dir))}"
