"""The results of several studies in one place, for others to read: `README.md`, one HTML page, figures."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomlkit

from rotnet_keras.config.finder import shipped_recipes
from rotnet_keras.errors import RunError
from rotnet_keras.files import write_atomically
from rotnet_keras.reports.report import facts_of, figures_of, render, result_tables, without_places
from rotnet_keras.runs.folder import RunFolder

# What others are told of a study: not its process, folders and command line.
KEPT_FACTS = ("format", "recipe", "created", "cpus", "processor", "device", "python", "versions", "steps", "scale")


@dataclass(frozen=True)
class Section:
    """One study as the pages show it."""

    name: str
    title: str
    paper: str
    command: str
    tables: list[Any]
    figures: list[dict[str, Any]]
    facts: list[tuple[str, str]]


def collect(studies: Sequence[RunFolder], output: Path, name: str, title: str) -> Path:
    """Write what finished studies came to.

    `README.md` has their tables and figures, `<name>.html` the same in one file; a folder for each study holds
    its figures as PNG and SVG, its recipe and its events, with every number of every run. Such a folder can be
    collected again, with others, where the runs are gone.

    Args:
        output: a folder; what is in it of these studies is replaced.

    Returns:
        The page.

    Raises:
        RunError: a run is no study, or not finished.
    """
    for run in studies:
        if run.settings().get("kind") != "study" or run.state() != "finished":
            raise RunError(f"{run.name} is not a finished study: only those can be collected")
    sections = [_section(run, output) for run in studies]
    values = {"title": title, "sections": sections}
    for template, path in (("results.md", output / "README.md"), ("results.html", output / f"{name}.html")):
        write_atomically(path, render(template, values).encode())
    return output / f"{name}.html"


def _section(run: RunFolder, output: Path) -> Section:
    settings, events = run.settings(), run.events()
    name = str(run.facts().get("recipe", run.name))
    figures = figures_of(run, events)
    target = RunFolder(output / name)
    if target.path.absolute() != run.path.absolute():
        target.figures.mkdir(parents=True, exist_ok=True)
        for file in run.figures.iterdir():
            shutil.copyfile(file, target.figures / file.name)
        shutil.copyfile(run.events_file, target.events_file)
        write_atomically(target.recipe, tomlkit.dumps(without_places(settings)).encode())
        facts = {key: value for key, value in run.facts().items() if key in KEPT_FACTS}
        write_atomically(target.facts_file, json.dumps(facts, indent=2).encode())
    command = f"rotnet-keras run {_as_typed(name)} scale={settings['scale']}"
    return Section(
        name, settings["title"], settings["paper"], command, result_tables(run), figures, facts_of(run, events)
    )


def _as_typed(name: str) -> str:
    """How a recipe is called on the command line: a shipped one by its name, any other as a file."""
    return next((shipped for shipped in shipped_recipes() if Path(shipped).name == name), f"{name}.toml")
