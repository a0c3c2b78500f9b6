"""The commands that bring a run to where people keep and share their experiments: track, publish."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rotnet_keras.cli.options import (
    PATH,
    argument,
    command,
    echo,
    find_model,
    find_run,
    flag,
    option,
    require_parent_folder,
    run_argument,
    runs_dir_option,
)
from rotnet_keras.errors import RecipeError, RotnetError, RunError

if TYPE_CHECKING:
    from rotnet_keras.runs.folder import RunFolder

# For the last try of the mirror of a run that has ended.
LAST_TRY_SECONDS = 60.0


@command(examples=("rotnet-keras track my_run --to mlflow",))
@run_argument
@click.option(
    "--to",
    "names",
    metavar="TRACKER",
    type=click.Choice(["mlflow", "wandb"]),
    multiple=True,
    help="mlflow or wandb; both with two --to. Those of the recipe's train.track by default.",
)
@runs_dir_option
def track(run: str, names: Sequence[str], runs_dir: Path) -> None:
    """Send a run to MLflow or Weights & Biases.

    What was sent before is not sent again. A run that goes on is followed to its end.
    """
    from rotnet_keras.runs.processes import Process
    from rotnet_keras.runs.tracking.mirror import only_mirror
    from rotnet_keras.runs.tracking.trackers import TRACKERS, require_trackers

    folder = find_run(run, runs_dir)
    folder.require_known_format()
    folder.require_own_files()
    wanted = folder.recipe_values().get("train", {}).get("track", [])
    names = list(dict.fromkeys(names or [name for name in wanted if name in TRACKERS]))
    if not names:
        raise RecipeError(f"expected --to mlflow or --to wandb: the recipe of {folder.name} has no train.track")
    require_trackers(names, "--to")
    if not folder.last_events():
        raise RunError(f"{folder.name} has not begun: there is nothing to send yet")
    # The mirror of a run that has just ended makes a last try.
    wait = LAST_TRY_SECONDS if folder.process() is Process.GONE else 0.0
    for name in names:
        with only_mirror(folder, name, wait):
            _mirror(folder, name)


def _mirror(folder: "RunFolder", name: str) -> None:
    """Send a run to a tracker.

    Raises:
        RotnetError: the tracker's package failed.
    """
    from rotnet_keras.runs.tracking.mirror import Mirror
    from rotnet_keras.runs.tracking.trackers import TRACKERS, open_tracker, reason

    try:
        mirror = Mirror(folder, name, open_tracker(name))
        echo(mirror.begin())
        mirror.send_all()
        echo(mirror.end())
    except RotnetError:
        raise
    except Exception as error:  # Whatever the tracker's package raises.
        raise RotnetError(f"{TRACKERS[name].title} fails: {reason(error)}") from None


@command(
    examples=(
        "rotnet-keras publish my_run --to model --license mit",
        "rotnet-keras publish my_run --to model --license mit --push USER/NAME",
    )
)
@argument("model", "MODEL", "A finished run, a pretrained model, or a .keras file.")
@option("--to", metavar="FOLDER", type=PATH, required=True, help="The folder to write.")
@option(
    "--license",
    "licence",
    metavar="NAME",
    required=True,
    help="The licence that you give the files, by the hub's name: such as mit, apache-2.0 or other.",
)
@option(
    "--license-link", "link", metavar="URL", default="", show_default=False, help="Where to read the licence other."
)
@option(
    "--model",
    "name",
    former="--export",
    metavar="MODEL",
    help="Which model of the run: backbone, rotnet or classifier; what the run trained by default.",
)
@option("--push", "repository", metavar="USER/NAME", help="Also upload the folder to this repository of the hub.")
@flag("--private", description="Create the repository as a private one.")
@runs_dir_option
def publish(
    model: str,
    to: Path,
    licence: str,
    link: str,
    name: str | None,
    repository: str | None,
    private: bool,
    runs_dir: Path,
) -> None:
    """Write a model as Hugging Face's hub expects it.

    The folder has the files that Keras reads with "hf://USER/NAME", and a model card with the figures of the run. It is
    loaded once, without this package, before the command ends.
    """
    from rotnet_keras.inference import publishing

    publishing.require_licence(licence, link)
    if repository:
        publishing.require_repository(repository)
    if private and not repository:
        raise RecipeError("--private: it is for a repository that --push names")
    require_parent_folder(to)
    found = find_model(model, runs_dir)
    if isinstance(found, Path) and name:
        raise RecipeError(f"--model: {found} is one model; name a run to choose among its models")
    file = found if isinstance(found, Path) else publishing.exported_model(found, name)
    weights = publishing.publish(file, to, licence, link, repository or "")
    echo(f"Wrote {to}: {file.name} with {weights:,} weights, which loads in Keras alone. Read {to / 'README.md'}.")
    if repository:
        echo(f"Pushed: {publishing.push(to, repository, private)}")
    else:
        echo(f"Push it: hf upload USER/NAME {shlex.quote(str(to))}")
