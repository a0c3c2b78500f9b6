"""What a study's runs came to, in numbers: tables beside the paper's, curves, and whether its claims hold."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rotnet_keras.runs.folder import RunFolder
from rotnet_keras.runs.task_labels import recalls_of, score_of, task_of


def measures(run: RunFolder) -> list[dict[str, Any]]:
    """All accuracies of a run, 0 to 1, each with what it is about: probe, weights, tap, epoch and class."""
    events, task = run.events(), task_of(run)
    classes = run.facts().get("data", {}).get("classes", [])
    per_epoch = run.facts().get("steps_per_epoch") or 1
    found = []
    last = max((e["step"] for e in events if e["kind"] == "probe"), default=0)
    for event in events:
        if event["kind"] == "epoch" and "validation" in event:
            found.append({"epoch": event["epoch"], "value": score_of(event["validation"])})
        elif event["kind"] == "test":
            found.append({"value": score_of(event)})
            each = zip(task.answers, recalls_of(event), strict=True)
            found += [{"class": name, "value": value} for name, value in each if value is not None]
        elif event["kind"] == "probe":
            about = {key: event[key] for key in ("probe", "weights", "tap")}
            if event["step"]:
                found.append({**about, "epoch": event["step"] / per_epoch, "value": event["top1"]})
            if event["step"] == last:
                found.append({**about, "value": event["top1"]})
                for name, recall in zip(classes, event["per_class"], strict=True):
                    found.append({**about, "class": name, "value": recall})
    return found


@dataclass(frozen=True)
class Cell:
    """One number of a table.

    Attributes:
        values: in percent, by seed.
        paper: the paper's, in percent.
    """

    values: dict[int, float]
    paper: float | None = None

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return statistics.fmean(self.values.values())

    @property
    def std(self) -> float | None:
        """Sample standard deviation over the seeds; None of a single one."""
        return statistics.stdev(self.values.values()) if len(self.values) > 1 else None


@dataclass(frozen=True)
class Grid:
    """A table: cells by row and column, both in the order of their first appearance."""

    title: str
    cells: dict[tuple[str, str], Cell]
    x: str | None
    log: bool

    @property
    def rows(self) -> list[str]:
        """Names of the rows."""
        return list(dict.fromkeys(row for row, _ in self.cells))

    @property
    def columns(self) -> list[str]:
        """Names of the columns; numbers by size."""
        names = list(dict.fromkeys(column for _, column in self.cells))
        return sorted(names, key=float) if self.x else names

    @property
    def spread(self) -> bool:
        """Whether it has cells of several seeds."""
        return any(len(cell.values) > 1 for cell in self.cells.values())

    def cell(self, row: str, column: str) -> Cell | None:
        """One of them; where columns are numbers, those of a row also go by "first" and "last"."""
        if self.x and column in ("first", "last"):
            columns = [name for name in self.columns if (row, name) in self.cells]
            column = columns[0 if column == "first" else -1] if columns else column
        return self.cells.get((row, column))

    def as_text(self) -> tuple[str, list[str], list[list[str]]]:
        """(title, columns, rows); a cell is "77.5 ± 0.4 (89.06)", the paper's number in brackets."""
        rows = []
        for row in self.rows:
            rows.append([row, *(_in_words(self.cells.get((row, column))) for column in self.columns)])
        return self.title, [self.x or "", *self.columns], rows


def grids(run: RunFolder) -> list[Grid]:
    """The tables of a study, of the runs that are finished so far."""
    settings = run.settings()
    by_run: dict[str, dict[int, list[dict[str, Any]]]] = {}
    for event in run.events():
        if event["kind"] == "run":
            by_run.setdefault(event["name"], {})[event["seed"]] = event["measures"]
    return [_grid(table, by_run) for table in settings.get("table", [])]


def _grid(table: dict[str, Any], by_run: dict[str, dict[int, list[dict[str, Any]]]]) -> Grid:
    cells: dict[tuple[str, str], Cell] = {}
    for entry in table["entry"]:
        paper = entry.get("paper")
        values: dict[str, dict[int, float]] = {}
        for seed, found in by_run.get(entry.get("run", ""), {}).items():
            for measure in found:
                if _meant(measure, entry):
                    column = _column(measure, entry)
                    values.setdefault(column, {})[seed] = 100 * measure["value"]
        if isinstance(paper, dict):
            for column in paper:
                values.setdefault(column, {})
        for column, by_seed in values.items():
            theirs = paper.get(column) if isinstance(paper, dict) else paper
            cells[entry["row"], column] = Cell(by_seed, theirs)
    return Grid(table["title"], cells, table.get("x"), table.get("log", False))


def _meant(measure: dict[str, Any], entry: dict[str, Any]) -> bool:
    """Whether an entry of a table asks for a measure."""
    by = entry.get("by")
    if measure.get("probe") != entry.get("probe") or ("epoch" in measure) != (by == "epoch"):
        return False
    if ("class" in measure) != (by == "class") or (entry.get("tap") and measure.get("tap") != entry["tap"]):
        return False
    return entry.get("probe") is None or measure["weights"] == entry.get("weights", "rotnet")


def _column(measure: dict[str, Any], entry: dict[str, Any]) -> str:
    if entry.get("column"):
        return str(entry["column"])
    value = measure[entry["by"]] if entry.get("by") else measure.get("tap", "top-1")
    return f"{value:g}" if isinstance(value, float) else str(value)


def _in_words(cell: Cell | None) -> str:
    if cell is None:
        return ""
    spread = f" ± {cell.std:.1f}" if cell.values and cell.std is not None else ""
    ours = f"{cell.mean:.1f}{spread}" if cell.values else ""
    theirs = "" if cell.paper is None else f"({cell.paper:g})"
    return f"{ours} {theirs}".strip()


@dataclass(frozen=True)
class Judged:
    """A claim of the paper and what was found of it.

    Attributes:
        difference: points by which the higher is above the lower, by seed; empty where a number is missing.
    """

    claim: str
    higher: str
    lower: str
    difference: Sequence[float]

    @property
    def verdict(self) -> str:
        """ "holds" or "does not hold" where all seeds agree, "not settled" where they don't or none is there."""
        if self.difference and min(self.difference) > 0:
            return "holds"
        return "does not hold" if self.difference and max(self.difference) <= 0 else "not settled"


def findings(run: RunFolder) -> list[Judged]:
    """The claims that a study looks at."""
    tables = grids(run)
    judged = []
    for finding in run.settings().get("finding", []):
        table = tables[finding.get("table", 0)]
        higher, lower = (table.cell(*finding[key]) for key in ("higher", "lower"))
        seeds = sorted(higher.values.keys() & lower.values.keys()) if higher and lower else []
        differences = [higher.values[s] - lower.values[s] for s in seeds] if higher and lower else []
        names = [", ".join(finding[key]) for key in ("higher", "lower")]
        judged.append(Judged(finding["claim"], names[0], names[1], differences))
    return judged


def study_tables(run: RunFolder) -> list[tuple[str, list[str], list[list[str]]]]:
    """(title, columns, rows) of all of a study's tables, the claims last."""
    rows = []
    for one in findings(run):
        points = ", ".join(f"{d:+.1f}" for d in one.difference)
        rows.append([one.claim, one.verdict, f"{one.higher} over {one.lower}: {points or 'not measured'}"])
    scores = [(name, score) for e in pictures(run) for name, score in e["scores"].items()]
    turning = [("How well attention turns with the image: 1 exactly, 0 not at all", ["", "correlation"],
                [[name, f"{score:.2f}"] for name, score in scores])] if scores else []  # fmt: skip
    claims = [("The paper's claims", ["claim", "here", "points, by seed"], rows)] if rows else []
    return [*(grid.as_text() for grid in grids(run)), *turning, *claims]


def pictures(run: RunFolder) -> list[dict[str, Any]]:
    """The newest event of each of a study's pictures."""
    return list({e["number"]: e for e in run.events() if e["kind"] == "picture"}.values())
