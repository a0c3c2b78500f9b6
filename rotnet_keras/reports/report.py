"""What came out of a run: tables for the terminal, `report.html` and `report.md` for keeping."""

import base64
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import tomlkit

from rotnet_keras.config.finder import PACKAGE
from rotnet_keras.files import write_atomically
from rotnet_keras.reports.paper import table_1
from rotnet_keras.reports.study_results import grids, pictures, study_tables
from rotnet_keras.runs import suitability
from rotnet_keras.runs.events import Event, probe_images
from rotnet_keras.runs.folder import RunFolder
from rotnet_keras.runs.task_labels import OTHER_SCORES, Task, recalls_of, score_of, task_of
from rotnet_keras.text import printable

Table = tuple[str, list[str], list[list[str]]]

WEIGHTS = {
    "rotnet": "RotNet",
    "random": "random weights",
    "random_identity": "random weights, mean 0 and variance 1",
    "pixels": "raw pixels",
}
HEADS = {
    "linear": "linear probe",
    "mlp": "non-linear probe (MLP)",
    "conv": "conv probe",
    "fc": "AlexNet's last layers",
    "conv_fc": "AlexNet's last convolution and layers",
    "knn": "k-NN",
}

# Answers that a table has columns for; of more it has rows.
MOST_COLUMNS = 8
# Answers that are told one by one, and drawn in a confusion matrix.
MOST_NAMES = 25

SNIPPET = """\
import keras

backbone = keras.models.load_model("export/backbone.keras")
features = keras.Model(backbone.input, backbone.get_layer("{tap}").output)
features.trainable = False  # or leave it True to fine-tune
"""


def result_tables(run: RunFolder) -> list[Table]:
    """Accuracy of the trained task, and object accuracy by tap beside controls and paper; a study's tables."""
    events, settings = run.events(), run.settings()
    if settings.get("kind") == "study":
        return study_tables(run)
    return [*_accuracy_tables(events, task_of(run)), *probe_tables(events, settings)]


def _accuracy_tables(events: Sequence[Event], task: Task) -> list[Table]:
    epochs = [e for e in events if e["kind"] == "epoch"]
    tests = [e for e in events if e["kind"] == "test"]
    if not epochs:
        return []
    answers = task.answers if len(task.answers) <= MOST_NAMES else ()
    rows = []
    for name, metrics in (
        ("train, last epoch", None if task.score else epochs[-1]),
        ("validation", epochs[-1].get("validation")),
        ("test", tests[-1] if tests else None),
    ):
        if metrics:
            each = [_percent(value) for value in recalls_of(metrics)]
            rows.append([name, _percent(score_of(metrics)), *(each or [""] * len(answers))[: len(answers)]])
    if not task.score:
        rows.append(["chance", *[_percent(1 / task.count)] * (1 + len(answers))])
    table = [["", "all", *answers], *rows]
    if len(answers) > MOST_COLUMNS:
        table = [list(column) for column in zip(*table, strict=True)]
    measure = task.score or task.accuracy
    tables: list[Table] = [(f"{measure[0].upper()}{measure[1:]}, %", table[0], table[1:])]
    others = [[words, _percent(tests[-1][key])] for key, words in OTHER_SCORES.items() if tests and key in tests[-1]]
    if others:
        tables.append(("The same worked out otherwise, test, %", ["", "all"], others))
    return tables


def probe_tables(events: Sequence[Event], recipe: dict[str, Any]) -> list[Table]:
    """Object accuracy by tap for each probe of a recipe, as last measured; step events are not looked at."""
    probes = [e for e in events if e["kind"] == "probe"]
    last = max((e["step"] for e in probes), default=0)
    tables = []
    for index in sorted({e["probe"] for e in probes}):
        mine = [e for e in probes if e["probe"] == index and e["step"] == last]
        if mine:
            tables.append(_probe_table(mine, recipe))
    return tables


def _probe_table(probes: Sequence[Event], recipe: dict[str, Any]) -> Table:
    head, labels = probes[0]["head"], probes[0]["labels_per_class"]
    found = {(e["tap"], e["weights"]): e for e in probes}
    columns = [w for w in WEIGHTS if w != "pixels" and any(e["weights"] == w for e in probes)]
    blocks = recipe.get("backbone", {}).get("blocks", 4)
    paper = table_1(recipe.get("data", {}).get("name", ""), blocks, head, labels)
    rows = []
    for tap in dict.fromkeys(e["tap"] for e in probes if e["tap"] != "pixels"):
        row = [tap, *(_top1(found.get((tap, weights))) for weights in columns)]
        rows.append(row + ([f"{paper[tap]:.2f}" if tap in paper else ""] if paper else []))
    if ("pixels", "pixels") in found:
        rows.append(["raw pixels", _top1(found["pixels", "pixels"]), *[""] * (len(columns) - 1 + bool(paper))])
    titles = ["tap", *(WEIGHTS[w] for w in columns)]
    if paper:
        titles.append(f"paper, NIN with {blocks} blocks")
    chance = 100 / max(1, len(probes[0]["per_class"]))
    what = f"{HEADS[head]}, {probe_images(probes[0], recipe)} (chance {chance:.3g})"
    return f"Object accuracy on test, %: {what}", titles, rows


def write_report(run: RunFolder, state: str | None = None) -> None:
    """Draw the figures and write `report.html` (one file, pictures inside) and `report.md`.

    Args:
        state: what to call the run; what its folder says when not given.
    """
    events = run.events()
    recipe = run.settings()
    end = next((e for e in reversed(events) if e["kind"] == "end"), None)
    suits = suitability.suitability_of(events)
    values = {
        "run": run,
        "title": recipe.get("title", run.name),
        "state": state or run.state(),
        "message": end["message"] if end and not state else "",
        "warnings": [e["message"] for e in events if e["kind"] == "warning"],
        "tables": result_tables(run),
        "sense": suitability.section(suits) if suits else None,
        "figures": figures_of(run, events),
        "snippet": SNIPPET.format(tap=_best_tap(events)) if run.backbone.is_file() else "",
        "recipe": tomlkit.dumps(without_places(recipe)).strip(),
        "facts": facts_of(run, events),
    }
    for name in ("report.html", "report.md"):
        write_atomically(run.path / name, render(name, values).encode())


def render(name: str, values: dict[str, Any]) -> str:
    """Fill in the template of a page."""
    from jinja2 import Environment, FileSystemLoader, select_autoescape

    environment = Environment(
        loader=FileSystemLoader(PACKAGE / "reports" / "templates"),
        autoescape=select_autoescape(["html.jinja"]),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cells"] = lambda row: " | ".join(str(cell).replace("|", "\\|") for cell in row)
    return printable(environment.get_template(f"{name}.jinja").render(values))


def figures_of(run: RunFolder, events: Sequence[Event]) -> list[dict[str, Any]]:
    """Draw a run's figures: {file, title, caption, base64, pixels} of each."""
    from rotnet_keras.reports import figures

    run.figures.mkdir(exist_ok=True)
    found: list[dict[str, Any]] = []

    def add(file: str, title: str, caption: str, pixels: bool = False) -> None:
        content = base64.b64encode((run.figures / file).read_bytes()).decode()
        found.append({"file": file, "title": title, "caption": caption, "base64": content, "pixels": pixels})

    if run.settings().get("kind") == "study":
        for number, grid in enumerate(grids(run)):
            if grid.x:
                figures.draw_grid(grid, run.figures / f"table-{number}.png")
                caption = "Mean over the seeds, with their standard deviation." if grid.spread else ""
                add(f"table-{number}.png", grid.title, caption)
        for picture in pictures(run):
            add(picture["file"], picture["title"], "The first test images; runs of the first seed.")
        return found
    task = task_of(run)
    if figures.draw_curves(events, None if task.score else task.count, task.accuracy, run.figures / "curves.png"):
        add("curves.png", "Curves", "Training is averaged over a few steps; validation is the whole split.")
    validated = [e for e in events if e["kind"] == "epoch" and "validation" in e]
    if validated and not task.score and len(task.answers) <= MOST_NAMES:
        counts = validated[-1]["validation"]["confusion"]
        figures.draw_confusion(counts, task.answers, "% of each row's truth", run.figures / "confusion.png")
        add("confusion.png", "What was taken for what", "Validation images; of turned ones, each copy by itself.")
    if (run.figures / "pictures.png").is_file():
        add("pictures.png", "Test pictures", "The best, and then the worst: what is there, and what was predicted.")
    samples = [e for e in events if e["kind"] == "samples" and (run.samples / str(e["file"])).is_file()]
    if samples:
        figures.draw_samples(samples[-1], run.samples / samples[-1]["file"], run.figures / "samples.png")
        add(
            "samples.png",
            "What the network sees",
            "Validation images, turned: true → predicted angle and its probability. The last row is the worst.",
        )
    suits = suitability.suitability_of(events)
    if suits and (run.samples / str(suits["file"])).is_file():
        figures.draw_ambiguous(suits, run.samples / suits["file"], run.figures / "ambiguous.png")
        caption = "By how much each may be turned as it is shown, by what the network says of all its copies."
        add("ambiguous.png", "The most ambiguous images", caption)
    if (run.figures / "filters.png").is_file():
        caption = "Kernels of the first convolution, scaled by its batch normalisation; grey is zero."
        add("filters.png", "First-layer filters", caption, True)
    probe = best_probe(events)
    if probe:
        names = run.facts().get("data", {}).get("classes", [])
        if len(names) <= MOST_NAMES:
            title = f"{HEADS[probe['head']]} on {probe['tap']}"
            figures.draw_confusion(probe["confusion"], names, f"{title}, % of each class", run.figures / "classes.png")
            add("classes.png", "Confusion of classes", f"Test images, {title}, the tap that is best on validation.")
    return found


def best_probe(events: Sequence[Event]) -> Event | None:
    """The probe result on our features that is best on validation: never chosen by test accuracy."""
    ours = [e for e in events if e["kind"] == "probe" and e["weights"] == "rotnet" and "validation_top1" in e]
    return max(ours, key=lambda e: (e["labels_per_class"] is None, e["validation_top1"]), default=None)


def _best_tap(events: Sequence[Event]) -> str:
    best = best_probe(events)
    return str(best["tap"]) if best else "conv2"


def facts_of(run: RunFolder, events: Sequence[Event]) -> list[tuple[str, str]]:
    """What a run was made of, on and with, in (name, words)."""
    facts = run.facts()
    steps = [e["step"] for e in events if e["kind"] == "step"]
    scale = run.settings().get("scales", {}).get(facts.get("scale"), {})
    seconds = {e["folder"]: e.get("seconds", 0.0) for e in events if e["kind"] == "run"}
    rows = [
        ("scale", scale.get("note", "")),
        ("where claims do not hold", " ".join(scale.get("remark", "").split())),
        ("runs", ", ".join(seconds)),
        ("data", _data(facts["data"]) if "data" in facts else ""),
        ("trainable parameters", f"{facts['parameters']:,}" if "parameters" in facts else ""),
        ("steps", f"{max(steps):,} of {facts.get('steps', 0):,}" if steps else ""),
        ("inputs seen", f"{max(steps) * facts.get('inputs_per_step', 0):,}" if steps else ""),
        ("time of its runs", clock(sum(seconds.values())) if seconds else ""),
        ("time", clock(working_seconds(events)) if not seconds else ""),
        ("of it pretraining", clock(pretraining_seconds(events)) if _rotates(run) else ""),
        ("made on", ", ".join([*(str(facts[key]) for key in ("device", "processor") if key in facts),
                               f"{facts.get('cpus')} cores"])),
        ("versions", ", ".join(f"{name} {version}" for name, version in facts.get("versions", {}).items())),
        ("finished", time.strftime("%Y-%m-%d", time.localtime(events[-1]["time"])) if events else ""),
    ]  # fmt: skip
    return [(key, value) for key, value in rows if value]


def _data(data: dict[str, Any]) -> str:
    counts = ", ".join(f"{data.get(split)} {split}" for split in ("train", "validation", "test"))
    return f"{Path(data.get('name', '')).name}: {counts}, {data.get('image_shape')} ({data.get('fingerprint')})"


def _rotates(run: RunFolder) -> bool:
    return bool(run.settings().get("kind") == "pretrain")


def working_seconds(events: Sequence[Event]) -> float:
    """Seconds that processes worked on the run, without the pauses between a stop and its resume.

    What a clock is set back by in between is left out.
    """
    return sum(max(0.0, b["time"] - a["time"]) for a, b in pairwise(events) if b["kind"] != "start")


def pretraining_seconds(events: Sequence[Event]) -> float:
    """The same up to the last epoch's end."""
    epochs = [i for i, e in enumerate(events) if e["kind"] == "epoch"]
    return working_seconds(events[: epochs[-1] + 1]) if epochs else 0.0


def clock(seconds: float) -> str:
    """Seconds as "1 h 02 min", "3 min 10 s" or "8 s"; empty for none."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    if minutes:
        return f"{minutes} min {rest:02d} s"
    return f"{rest} s" if rest else ""


def without_places(recipe: dict[str, Any]) -> dict[str, Any]:
    """The recipe as others can use it: file names without the folders of this machine."""
    shown = dict(recipe)
    if "data" in recipe:
        shown["data"] = _data_without_places(recipe["data"])
    if "data" in recipe.get("set", {}):
        shown["set"] = recipe["set"] | {"data": _data_without_places(recipe["set"]["data"])}
    for section in ("backbone", "pretrained"):
        if "file" in recipe.get(section, {}):
            shown[section] = recipe[section] | {"file": _last(recipe[section]["file"])}
    for name, scale in recipe.get("scales", {}).items():
        recipes = {key: _last(value) for key, value in scale["recipes"].items()}
        shown["scales"] = shown["scales"] | {name: scale | {"recipes": recipes}}
    return shown


def _data_without_places(data: dict[str, Any]) -> dict[str, Any]:
    return {key: _last(value) if key == "name" else value for key, value in data.items() if key != "data_dir"}


def _last(name: str) -> str:
    """The last part of an absolute path; any other name as it is."""
    return Path(name).name if Path(name).is_absolute() else name


def _top1(event: Event | None) -> str:
    if event is None:
        return ""
    spread = f" ± {100 * event['top1_std']:.1f}" if "top1_std" in event else ""
    return _percent(event["top1"]) + spread


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"
