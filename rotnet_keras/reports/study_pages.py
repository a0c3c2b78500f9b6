"""The results of several studies collected for publication: `README.md`, one HTML page, and figures."""

import json
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomlkit

from rotnet_keras.config.finder import shipped_recipes
from rotnet_keras.config.loading import flatten_overrides
from rotnet_keras.errors import RunError
from rotnet_keras.files import has_file, make_folder, open_file, replacing, write_atomically
from rotnet_keras.reports.report import check_recipe, draw_run_figures, render, run_details, without_local_paths
from rotnet_keras.reports.tables import result_tables
from rotnet_keras.runs.event_fields import check_events
from rotnet_keras.runs.folder import RunFolder
from rotnet_keras.runs.values import PLAIN_NAME

# The facts of a study that are published: not its process, folders and command line.
KEPT_FACTS = ("format", "recipe", "created", "cpus", "processor", "device", "python", "versions", "steps", "scale")


@dataclass(frozen=True)
class Section:
    """A study as the pages show it."""

    name: str
    title: str
    paper: str
    command: str
    tables: list[Any]
    figures: list[dict[str, Any]]
    details: list[tuple[str, str]]


def collect(studies: Sequence[RunFolder], output: Path, name: str, title: str) -> Path:
    """Write the results of finished studies into a folder.

    `README.md` has their tables and figures, and `<name>.html` has the same in one file. A folder for each study has
    its figures as PNG and SVG, its recipe, and its events with every number of every run. Such a folder can be
    collected again, together with others, when the runs themselves are gone.

    Args:
        studies: run folders of studies, or folders that this function has written.
        output: the folder; earlier results of these studies in it are replaced.
        name: the name of the HTML page, without extension.
        title: the heading of the pages.

    Returns:
        The path of the HTML page.

    Raises:
        RunError: a run is not a study, or not finished, its recipe makes no sense or its name is no plain name, or its
            folder holds a link.
    """
    for run in studies:
        run.require_own_files()
        check_recipe(run)
        if run.recipe_values().get("kind") != "study" or run.state() != "finished":
            raise RunError(f"{run.name} is not a finished study; only finished studies can be collected")
    output.mkdir(parents=True, exist_ok=True)
    sections = [_section(run, output) for run in studies]
    values = {"title": title, "sections": sections}
    for template, path in (("results.md", output / "README.md"), ("results.html", output / f"{name}.html")):
        write_atomically(path, render(template, values).encode(), output)
    return output / f"{name}.html"


def _section(run: RunFolder, output: Path) -> Section:
    recipe, events = run.recipe_values(), run.events()
    check_events(run.events_file, events)
    name = run.facts().get("recipe", run.name)
    if not PLAIN_NAME.fullmatch(name):
        raise RunError(f"{run.facts_file}: recipe: expected a plain name, which becomes that of a folder, got {name!r}")
    figures = draw_run_figures(run, events)
    target = RunFolder(output / name)
    if target.path.absolute() != run.path.absolute():
        make_folder(target.path, output)
        make_folder(target.figures, output)
        drawn = [run.figures / str(figure["file"]) for figure in figures]
        for file in [found for png in drawn for found in (png, png.with_suffix(".svg")) if has_file(found)]:
            _copy(file, run.path, target.figures / file.name, output)
        _copy(run.events_file, run.path, target.events_file, output)
        write_atomically(target.recipe, tomlkit.dumps(without_local_paths(recipe)).encode(), output)
        facts = {key: value for key, value in run.facts().items() if key in KEPT_FACTS}
        write_atomically(target.facts_file, json.dumps(facts, indent=2).encode(), output)
    # The data of a study that has none of its own, such as a folder of scenes.
    changed = flatten_overrides({"set": without_local_paths(recipe).get("set", {})})
    words = [
        f"{key}={each if isinstance(each, str) else tomlkit.item(each).as_string()}" for key, each in changed.items()
    ]
    command = shlex.join(["rotnet-keras", "run", _recipe_argument(name), f"scale={recipe['scale']}", *words])
    return Section(
        name, recipe["title"], recipe.get("paper", ""), command, result_tables(run), figures, run_details(run, events)
    )


def _copy(file: Path, inside: Path, copy: Path, output: Path) -> None:
    with open_file(file, inside) as source, replacing(copy, output) as target:
        shutil.copyfileobj(source, target)


def _recipe_argument(name: str) -> str:
    """Return how a recipe is named on the command line: a shipped one by its name, any other by its file."""
    return next((shipped for shipped in shipped_recipes() if Path(shipped).name == name), f"{name}.toml")
