"""Tables of a run's results, as text: accuracies of the trained task, and of probes beside baselines and the paper."""

from collections.abc import Sequence
from typing import Any

from rotnet_keras.reports.study_results import study_tables
from rotnet_keras.runs.events import Event, describe_probe_data, newest_probes
from rotnet_keras.runs.folder import RunFolder
from rotnet_keras.runs.task_labels import OTHER_SCORES, Task, backbone_blocks, per_class_scores, score_of, task_of
from rotnet_keras.text import percent

# A title, the headings of the columns, and the rows.
Table = tuple[str, list[str], list[list[str]]]

# What a probe's features come from, by the name that events use.
WEIGHTS_NAMES = {
    "rotnet": "RotNet",
    "random": "random weights",
    "random_identity": "random weights, mean 0 and variance 1",
    "pixels": "raw pixels",
}
# Probes by the name of their head in recipes.
HEAD_NAMES = {
    "linear": "linear probe",
    "mlp": "non-linear probe (MLP)",
    "conv": "conv probe",
    "fc": "AlexNet's fully connected layers",
    "conv_fc": "AlexNet's last convolution and fully connected layers",
    "knn": "k-NN",
}
# Table 1 of the paper (Gidaris, Singh and Komodakis, ICLR 2018): top-1 on CIFAR-10, in percent, of the non-linear probe
# on each block, by the number of blocks of the NIN.
PAPER_TABLE_1 = {
    3: {"conv1": 85.45, "conv2": 88.26, "conv3": 62.09},
    4: {"conv1": 85.07, "conv2": 89.06, "conv3": 86.21, "conv4": 61.73},
    5: {"conv1": 85.04, "conv2": 89.76, "conv3": 86.82, "conv4": 74.50, "conv5": 50.37},
}

# With more classes than this, a table has a row for each class instead of a column.
MAX_COLUMNS = 8
# With more classes than this, neither tables nor confusion matrices list them one by one.
MAX_LISTED_CLASSES = 25


def result_tables(run: RunFolder) -> list[Table]:
    """Return the tables of a run: accuracy of the trained task, then of each probe; for a study, its own tables."""
    if run.recipe_values().get("kind") == "study":
        return study_tables(run)
    events = run.events()
    return [*_accuracy_tables(events, task_of(run)), *_novelty_tables(events), *probe_tables(run, events)]


def _novelty_tables(events: Sequence[Event]) -> list[Table]:
    """How well the rotations tell images of classes that were left out of the training."""
    found = [event for event in events if event["kind"] == "novelty"]
    if not found:
        return []
    last = found[-1]
    title = f"AUROC on test, %: images of {', '.join(last['classes'])} against those of other classes"
    rows = [["probabilities", _cell(last["auroc"])], ["their logarithms", _cell(last["auroc_log"])]]
    return [(title, ["score of the rotations", "all"], [*rows, ["chance", _cell(0.5)]])]


def _accuracy_tables(events: Sequence[Event], task: Task) -> list[Table]:
    epochs = [e for e in events if e["kind"] == "epoch"]
    tests = [e for e in events if e["kind"] == "test"]
    if not epochs:
        return []
    classes = task.classes if len(task.classes) <= MAX_LISTED_CLASSES else ()
    rows = []
    for name, metrics in (
        ("train, last epoch", None if task.score_name else epochs[-1]),
        ("validation", epochs[-1].get("validation")),
        ("test", tests[-1] if tests else None),
    ):
        if metrics:
            by_class = [_cell(value) for value in per_class_scores(metrics)]
            rows.append([name, _cell(score_of(metrics)), *(by_class or [""] * len(classes))[: len(classes)]])
    if not task.score_name:
        rows.append(["chance", *[_cell(1 / task.num_classes)] * (1 + len(classes))])
    table = [["", "all", *classes], *rows]
    if len(classes) > MAX_COLUMNS:
        table = [list(column) for column in zip(*table, strict=True)]
    measure = task.score_name or task.accuracy_name
    tables: list[Table] = [(f"{measure[0].upper()}{measure[1:]}, %", table[0], table[1:])]
    others = [[words, _cell(tests[-1][key])] for key, words in OTHER_SCORES.items() if tests and key in tests[-1]]
    if others:
        tables.append(("Other measures on test, %", ["", "all"], others))
    return tables


def probe_tables(run: RunFolder, events: Sequence[Event]) -> list[Table]:
    """Return a table for each probe of a run: object accuracy by tap, as measured last.

    Args:
        events: of the run; only its probe events are needed.
    """
    recipe, blocks = run.recipe_values(), backbone_blocks(run)
    probes = newest_probes(events)
    indices = sorted({e["probe"] for e in probes})
    return [_probe_table([e for e in probes if e["probe"] == index], recipe, blocks) for index in indices]


def _probe_table(probes: Sequence[Event], recipe: dict[str, Any], blocks: int | None) -> Table:
    head, labels = probes[0]["head"], probes[0]["labels_per_class"]
    found = {(e["tap"], e["weights"]): e for e in probes}
    columns = [w for w in WEIGHTS_NAMES if any(e["weights"] == w for e in probes)]
    paper = _paper_row(recipe.get("data", {}).get("name", ""), blocks, head, labels)
    rows = []
    for tap in dict.fromkeys(e["tap"] for e in probes if e["tap"] != "pixels"):
        # Raw pixels have no taps: their one accuracy stands beside each.
        row = [tap, *(_top1(found.get(("pixels" if w == "pixels" else tap, w))) for w in columns)]
        rows.append(row + ([f"{paper[tap]:.2f}" if tap in paper else ""] if paper else []))
    titles = ["tap", *(WEIGHTS_NAMES[w] for w in columns)]
    if paper:
        titles.append(f"paper, NIN with {blocks} blocks")
    chance = 100 / max(1, len(probes[0]["per_class"]))
    what = f"{HEAD_NAMES[head]}, {describe_probe_data(probes[0], recipe)} (chance {chance:.3g})"
    return f"Object accuracy on test, %: {what}", titles, rows


def _paper_row(data: str, blocks: int | None, head: str, labels_per_class: int | None) -> dict[str, float]:
    """Return the paper's accuracies, in percent by tap, that a probe compares to; empty if it has none."""
    if data == "cifar10" and head == "mlp" and labels_per_class is None and blocks:
        return PAPER_TABLE_1.get(blocks, {})
    return {}


def _top1(event: Event | None) -> str:
    """Return a top-1 accuracy in percent, with its standard deviation if there is one."""
    if event is None:
        return ""
    spread = f" ± {100 * event['top1_std']:.1f}" if "top1_std" in event else ""
    return _cell(event["top1"]) + spread


def _cell(share: float | None) -> str:
    return percent(share, sign="")
