"""The report of a run: `report.html`, one file with its figures inside, and `report.md`."""

import base64
import time
from collections.abc import Sequence
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import tomlkit

from rotnet_keras.config.finder import PACKAGE
from rotnet_keras.config.loading import type_problem
from rotnet_keras.config.renamed_keys import with_current_keys
from rotnet_keras.errors import DataError, RunError
from rotnet_keras.files import make_folder, read_file, write_atomically
from rotnet_keras.reports.study_results import picture_events, result_grids
from rotnet_keras.reports.tables import HEAD_NAMES, MAX_LISTED_CLASSES, result_tables
from rotnet_keras.runs import feature_quality, suitability
from rotnet_keras.runs.event_fields import check_events
from rotnet_keras.runs.events import Event
from rotnet_keras.runs.exports.backbone_file import best_probe, default_tap, read_backbone
from rotnet_keras.runs.folder import RunFolder
from rotnet_keras.runs.machine_load import system_summary
from rotnet_keras.runs.tags import read_labels
from rotnet_keras.runs.task_labels import task_of
from rotnet_keras.runs.values import file_named
from rotnet_keras.text import duration, percent, printable

# Figures wider than this are scrolled on small screens instead of being shrunk.
WIDE_PIXELS = 900
# A larger figure is not one of ours.
MAX_FIGURE_BYTES = 1 << 26

SNIPPET = """\
import keras

backbone = keras.models.load_model("export/backbone.keras")
features = keras.Model(backbone.input, backbone.get_layer("{tap}").output)
features.trainable = False  # or leave it True to fine-tune
"""


def write_report(run: RunFolder, state: str | None = None) -> None:
    """Draw the figures of a run and write `report.html` (one file, images inside) and `report.md`.

    Args:
        run: the run, in any state.
        state: the state that the report shows; by default the run's own.

    Raises:
        RunError: the folder holds something that is not its own, such as a link, or events lack fields.
    """
    run.require_own_files()
    events = run.events()
    check_events(run.events_file, events)
    check_recipe(run)
    recipe = run.recipe_values()
    end = next((e for e in reversed(events) if e["kind"] == "end"), None)
    suitable = suitability.latest_suitability(events)
    values = {
        "run": run,
        "title": recipe.get("title", run.name),
        "state": state or run.state(),
        "message": end["message"] if end and not state else "",
        "warnings": [e["message"] for e in events if e["kind"] == "warning"],
        "tables": result_tables(run),
        "features": _features(events),
        "suitability": suitability.report_section(suitable) if suitable else None,
        "figures": draw_run_figures(run, events),
        "snippet": _snippet(run),
        "recipe": tomlkit.dumps(without_local_paths(recipe)).strip(),
        "details": run_details(run, events),
    }
    for name in ("report.html", "report.md"):
        write_atomically(run.path / name, render(name, values).encode(), run.path)


def check_recipe(run: RunFolder) -> None:
    """Check that what a run's recipe says has the types that are read; a missing recipe says nothing.

    Raises:
        RunError: something has not; the message names the first.
    """
    values = run.all_recipe_values()
    if values and (problem := type_problem(values)):
        raise RunError(f"{run.recipe}: {problem}. The file is damaged, or another program wrote it")


def _features(events: Sequence[Event]) -> dict[str, Any] | None:
    """Return what the report says about the features without labels; None if nothing was measured."""
    curves = feature_quality.tap_curves(events)
    if not curves:
        return None
    columns, rows = feature_quality.rows(curves)
    return {
        "question": feature_quality.QUESTION,
        "advice": feature_quality.advice(events),
        "trust": feature_quality.TRUST,
        "columns": columns,
        "rows": rows,
    }


def _snippet(run: RunFolder) -> str:
    """Return Python code that reads features from the backbone of a run; empty if there is none."""
    if not run.backbone.is_file():
        return ""
    try:
        layers = read_backbone(run.backbone).layers
    except DataError:  # A damaged file: nothing can be read from it.
        return ""
    return SNIPPET.format(tap=default_tap(run.backbone, layers))


def render(name: str, values: dict[str, Any]) -> str:
    """Fill in a template.

    Args:
        name: the name of the page, such as "report.html"; its template is `templates/report.html.jinja`.
        values: the variables of the template.
    """
    from jinja2 import Environment, FileSystemLoader, select_autoescape

    environment = Environment(
        loader=FileSystemLoader(PACKAGE / "reports" / "templates"),
        autoescape=select_autoescape(["html.jinja"]),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cells"] = lambda row: " | ".join(
        " ".join(str(cell).split()).replace("|", "\\|") for cell in row
    )
    environment.filters["percent"] = percent
    return printable(environment.get_template(f"{name}.jinja").render(values))


def draw_run_figures(run: RunFolder, events: Sequence[Event]) -> list[dict[str, Any]]:
    """Draw the figures of a run into its folder.

    Returns:
        For each figure: `file`, `title`, `caption`, `base64` (the PNG file), `pixels` (whether to enlarge it without
        smoothing) and `wide` (whether it is too wide to shrink it to the screen of a phone).
    """
    from PIL import Image

    from rotnet_keras.reports import figures
    from rotnet_keras.reports.system_figures import draw_system

    make_folder(run.figures, run.path)
    found: list[dict[str, Any]] = []

    def add(file: str, title: str, caption: str, pixels: bool = False) -> None:
        content = read_file(run.figures / file, MAX_FIGURE_BYTES, run.path)
        with Image.open(BytesIO(content), formats=("PNG",)) as image:
            wide = image.width > WIDE_PIXELS
        found.append(
            {
                "file": file,
                "title": title,
                "caption": caption,
                "base64": base64.b64encode(content).decode(),
                "pixels": pixels,
                "wide": wide,
            }
        )

    if run.recipe_values().get("kind") == "study":
        for number, grid in enumerate(result_grids(run)):
            if grid.x:
                figures.draw_result_grid(grid, run.figures / f"table-{number}.png", run.path)
                caption = "Mean over the seeds, with the standard deviation." if grid.spread else ""
                add(f"table-{number}.png", grid.title, caption)
        for picture in picture_events(run):
            if file_named(run.figures, picture["file"]):
                add(picture["file"], picture["title"], "The first test images; runs of the first seed.")
        return found
    task = task_of(run)
    chance_classes = None if task.score_name else task.num_classes
    if figures.draw_curves(events, chance_classes, task.accuracy_name, run.figures / "curves.png", run.path):
        add("curves.png", "Curves", "Training values are averaged over a few steps; validation uses the whole split.")
    curves = feature_quality.tap_curves(events)
    if curves:
        per_epoch = max(1, run.facts().get("steps_per_epoch", 1))
        figures.draw_feature_curves(curves, per_epoch, run.figures / "features.png", run.path)
        add("features.png", "Features by epoch", f"Of each tap, on the same images. {feature_quality.TRUST}")
    validated = [e for e in events if e["kind"] == "epoch" and "validation" in e]
    if validated and not task.score_name and len(task.classes) <= MAX_LISTED_CLASSES:
        counts = validated[-1]["validation"].get("confusion")
    else:
        counts = None
    if counts and len(counts) == len(task.classes):
        figures.draw_confusion(counts, task.classes, "% of each true class", run.figures / "confusion.png", run.path)
        what = "Validation images; every rotated copy counts." if _rotates(run) else "Validation images."
        add("confusion.png", "Confusion matrix", what)
    if file_named(run.figures, "pictures.png"):
        add("pictures.png", "Test images", "The best results, then the worst: ground truth and prediction.")
    samples = [e for e in events if e["kind"] == "samples" and file_named(run.samples, e["file"])]
    if samples:
        figures.draw_samples(samples[-1], run.samples / samples[-1]["file"], run.figures / "samples.png", run.path)
        caption = (
            "Rotated validation images, each with its true → predicted angle and the probability of the prediction. "
        )
        add("samples.png", "Sample predictions", f"{caption}The last row shows the worst predictions.")
    suitable = suitability.latest_suitability(events)
    if suitable and {"tile", "tiles"} <= suitable.keys() and file_named(run.samples, suitable.get("file")):
        figures.draw_ambiguous(suitable, run.samples / suitable["file"], run.figures / "ambiguous.png", run.path)
        caption = "The two most probable rotations of each image as shown, from the predictions for all its copies."
        add("ambiguous.png", "The most ambiguous images", caption)
    if draw_system(events, run.figures / "system.png", run.path):
        caption = "Measured by the run itself. Pauses between a stop and the next start are left out."
        add("system.png", "Machine", caption)
    if file_named(run.figures, "filters.png"):
        caption = "Kernels of the first convolution, scaled by its batch normalisation; grey is zero."
        add("filters.png", "First-layer filters", caption, True)
    probe = best_probe(events)
    if probe:
        names = run.facts().get("data", {}).get("classes", [])
        # Of many classes no matrix is kept.
        if probe.get("confusion") and len(probe["confusion"]) == len(names) <= MAX_LISTED_CLASSES:
            title = f"{HEAD_NAMES[probe['head']]} on {probe['tap']}"
            figures.draw_confusion(
                probe["confusion"], names, "% of each true class", run.figures / "classes.png", run.path
            )
            add("classes.png", f"Confusion matrix: {title}", "Test images. The probe is the best one on validation.")
    return found


def run_details(run: RunFolder, events: Sequence[Event]) -> list[tuple[str, str]]:
    """Return (name, text) rows on a run: its data, size, time, hardware and versions."""
    facts = run.facts()
    steps = [e["step"] for e in events if e["kind"] == "step"]
    scale = run.recipe_values().get("scales", {}).get(facts.get("scale"), {})
    seconds = {e["folder"]: e.get("seconds", 0.0) for e in events if e["kind"] == "run"}
    labels = read_labels(run)
    rows = [
        ("tags", " ".join(labels.tags)),
        ("note", labels.note),
        ("scale", scale.get("note", "")),
        ("remark", " ".join(scale.get("remark", "").split())),
        ("runs", ", ".join(seconds)),
        ("data", _data(facts["data"]) if "data" in facts else ""),
        ("trainable parameters", f"{facts['parameters']:,}" if "parameters" in facts else ""),
        ("steps", f"{max(steps):,} of {facts.get('steps', 0):,}" if steps else ""),
        ("training inputs", f"{max(steps) * facts.get('inputs_per_step', 0):,}" if steps else ""),
        ("time of all runs", _time(sum(seconds.values()))),
        ("time", "" if seconds else _time(working_seconds(events))),
        ("time of pretraining", _time(pretraining_seconds(events)) if _rotates(run) else ""),
        ("hardware", ", ".join([*(str(facts[key]) for key in ("device", "processor") if key in facts),
                                f"{facts.get('cpus')} cores"])),
        *system_summary(events).items(),
        ("versions", ", ".join(f"{name} {version}" for name, version in facts.get("versions", {}).items())),
        ("finished", time.strftime("%Y-%m-%d", time.localtime(events[-1]["time"])) if events else ""),
    ]  # fmt: skip
    return [(key, value) for key, value in rows if value]


def _data(data: dict[str, Any]) -> str:
    counts = ", ".join(f"{data.get(split)} {split}" for split in ("train", "validation", "test"))
    return f"{Path(data.get('name', '')).name}: {counts}, {data.get('image_shape')} ({data.get('fingerprint')})"


def _time(seconds: float) -> str:
    return duration(seconds) if round(seconds) else ""


def _rotates(run: RunFolder) -> bool:
    return bool(run.recipe_values().get("kind") == "pretrain")


def working_seconds(events: Sequence[Event]) -> float:
    """Return how many seconds processes worked on a run, without the pauses between a stop and the next start.

    Where the clock was set back between two events, nothing is counted.
    """
    return sum(max(0.0, b["time"] - a["time"]) for a, b in pairwise(events) if b["kind"] != "start")


def pretraining_seconds(events: Sequence[Event]) -> float:
    """Return the working seconds up to the end of the last epoch, without the probes after it."""
    epochs = [i for i, e in enumerate(events) if e["kind"] == "epoch"]
    return working_seconds(events[: epochs[-1] + 1]) if epochs else 0.0


def without_local_paths(recipe: dict[str, Any]) -> dict[str, Any]:
    """Return the recipe as others can use it: keys have their present names, absolute paths only their last part."""
    recipe = with_current_keys(recipe)[0]
    shown = dict(recipe)
    if "data" in recipe:
        shown["data"] = _data_without_paths(recipe["data"])
    if "data" in recipe.get("set", {}):
        shown["set"] = recipe["set"] | {"data": _data_without_paths(recipe["set"]["data"])}
    for section in ("backbone", "pretrained"):
        if "file" in recipe.get(section, {}):
            shown[section] = recipe[section] | {"file": _last_part(recipe[section]["file"])}
    for name, scale in recipe.get("scales", {}).items():
        recipes = {key: _last_part(value) for key, value in scale["recipes"].items()}
        shown["scales"] = shown["scales"] | {name: scale | {"recipes": recipes}}
    return shown


def _data_without_paths(data: dict[str, Any]) -> dict[str, Any]:
    return {key: _last_part(value) if key == "name" else value for key, value in data.items() if key != "data_dir"}


def _last_part(name: str) -> str:
    """Return the last part of an absolute path; any other name as it is."""
    return Path(name).name if Path(name).is_absolute() else name
