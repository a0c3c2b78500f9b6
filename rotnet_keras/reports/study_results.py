"""The results of a study: tables of its runs beside the paper's numbers, and whether the paper's claims hold."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rotnet_keras.runs.folder import RunFolder
from rotnet_keras.runs.task_labels import per_class_scores, score_of, task_of


def run_measures(run: RunFolder) -> list[dict[str, Any]]:
    """Return all accuracies of a run: `value`, 0 to 1, with its probe, weights, tap, epoch and class if it has them."""
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
            by_class = zip(task.classes, per_class_scores(event), strict=True)
            found += [{"class": name, "value": value} for name, value in by_class if value is not None]
        elif event["kind"] == "novelty":
            scores = {"probabilities": event["auroc"], "logarithms": event["auroc_log"]}
            found += [{"novelty": name, "value": value} for name, value in scores.items()]
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
    """A cell of a table.

    Attributes:
        values: measured, in percent, by seed.
        paper: the paper's value, in percent.
    """

    values: dict[int, float]
    paper: float | None = None

    @property
    def mean(self) -> float:
        """Mean over the seeds."""
        return statistics.fmean(self.values.values())

    @property
    def std(self) -> float | None:
        """Sample standard deviation over the seeds; None if there is only one."""
        return statistics.stdev(self.values.values()) if len(self.values) > 1 else None


@dataclass(frozen=True)
class ResultGrid:
    """A table of results: cells by row and column, both in the order of their first appearance.

    Attributes:
        title: the heading.
        cells: by (row, column).
        x: what the columns measure, if their names are numbers and the rows can be drawn as curves.
        log: whether such curves have a logarithmic axis.
    """

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
        """Names of the columns; numbers are sorted."""
        names = list(dict.fromkeys(column for _, column in self.cells))
        return sorted(names, key=float) if self.x else names

    @property
    def spread(self) -> bool:
        """Whether any cell has several seeds."""
        return any(len(cell.values) > 1 for cell in self.cells.values())

    def cell(self, row: str, column: str) -> Cell | None:
        """Return a cell. If columns are numbers, "first" and "last" stand for the first and last one of the row."""
        if self.x and column in ("first", "last"):
            columns = [name for name in self.columns if (row, name) in self.cells]
            column = columns[0 if column == "first" else -1] if columns else column
        return self.cells.get((row, column))

    def as_text(self) -> tuple[str, list[str], list[list[str]]]:
        """Return title, columns and rows as text; a cell is "77.5 ± 0.4 (89.06)", the paper's value in brackets."""
        rows = []
        for row in self.rows:
            rows.append([row, *(_cell_text(self.cells.get((row, column))) for column in self.columns)])
        return self.title, [self.x or "", *self.columns], rows


def result_grids(run: RunFolder) -> list[ResultGrid]:
    """Return the tables of a study, filled with the runs that are finished so far."""
    recipe = run.recipe_values()
    by_run: dict[str, dict[int, list[dict[str, Any]]]] = {}
    for event in run.events():
        if event["kind"] == "run":
            by_run.setdefault(event["name"], {})[event["seed"]] = event["measures"]
    return [_grid(table, by_run) for table in recipe.get("table", [])]


def _grid(table: dict[str, Any], by_run: dict[str, dict[int, list[dict[str, Any]]]]) -> ResultGrid:
    cells: dict[tuple[str, str], Cell] = {}
    for entry in table["entry"]:
        paper = entry.get("paper")
        values: dict[str, dict[int, float]] = {}
        for seed, found in by_run.get(entry.get("run", ""), {}).items():
            for measure in found:
                if _matches(measure, entry):
                    column = _column(measure, entry)
                    values.setdefault(column, {})[seed] = 100 * measure["value"]
        if isinstance(paper, dict):
            for column in paper:
                values.setdefault(column, {})
        for column, by_seed in values.items():
            theirs = paper.get(column) if isinstance(paper, dict) else paper
            cells[entry["row"], column] = Cell(by_seed, theirs)
    if table.get("mean"):
        _add_means(cells, table["mean"])
    return ResultGrid(table["title"], cells, table.get("x"), table.get("log", False))


def _add_means(cells: dict[tuple[str, str], Cell], row: str) -> None:
    """Add a row with the mean of each column, for the seeds that all of its rows have; published means stay."""
    measured: dict[str, list[dict[int, float]]] = {}
    for (_, column), cell in cells.items():
        measured.setdefault(column, []).append(cell.values)
    rows = len({name for name, _ in cells} - {row})
    for column, by_row in measured.items():
        by_row = [values for values in by_row if values]
        seeds = set.intersection(*map(set, by_row)) if len(by_row) == rows else set()
        theirs = cells.get((row, column))
        means = {seed: statistics.fmean(values[seed] for values in by_row) for seed in sorted(seeds)}
        if means or theirs:
            cells[row, column] = Cell(means, theirs.paper if theirs else None)


def _matches(measure: dict[str, Any], entry: dict[str, Any]) -> bool:
    """Return whether an entry of a table asks for this measure."""
    by = entry.get("by")
    if measure.get("novelty") != entry.get("novelty"):
        return False
    if measure.get("probe") != entry.get("probe") or ("epoch" in measure) != (by == "epoch"):
        return False
    if ("class" in measure) != (by == "class") or (entry.get("tap") and measure.get("tap") != entry["tap"]):
        return False
    return entry.get("probe") is None or measure["weights"] == entry.get("weights", "rotnet")


def _column(measure: dict[str, Any], entry: dict[str, Any]) -> str:
    if entry.get("column"):
        return str(entry["column"])
    value = (
        measure[entry["by"]] if entry.get("by") else measure.get("tap", "AUROC" if "novelty" in measure else "top-1")
    )
    return f"{value:g}" if isinstance(value, float) else str(value)


def _cell_text(cell: Cell | None) -> str:
    if cell is None:
        return ""
    spread = f" ± {cell.std:.1f}" if cell.values and cell.std is not None else ""
    ours = f"{cell.mean:.1f}{spread}" if cell.values else ""
    theirs = "" if cell.paper is None else f"({cell.paper:g})"
    return f"{ours} {theirs}".strip()


@dataclass(frozen=True)
class ClaimResult:
    """A claim of the paper, that one cell is higher than another, and what was measured.

    Attributes:
        claim: the claim in words.
        higher: names of the cell that the claim says is higher.
        lower: names of the other cell.
        difference: percentage points by which the first exceeds the second, by seed; empty if a value is missing.
    """

    claim: str
    higher: str
    lower: str
    difference: Sequence[float]

    @property
    def verdict(self) -> str:
        """Return "holds" or "does not hold" if all seeds agree, else "not settled"."""
        if self.difference and min(self.difference) > 0:
            return "holds"
        return "does not hold" if self.difference and max(self.difference) <= 0 else "not settled"


def claim_results(run: RunFolder) -> list[ClaimResult]:
    """Return the result for each claim that a study tests."""
    grids = result_grids(run)
    results = []
    for finding in run.recipe_values().get("finding", []):
        grid = grids[finding.get("table", 0)]
        higher, lower = (grid.cell(*finding[key]) for key in ("higher", "lower"))
        seeds = sorted(higher.values.keys() & lower.values.keys()) if higher and lower else []
        differences = [higher.values[s] - lower.values[s] for s in seeds] if higher and lower else []
        names = [", ".join(finding[key]) for key in ("higher", "lower")]
        results.append(ClaimResult(finding["claim"], names[0], names[1], differences))
    return results


def study_tables(run: RunFolder) -> list[tuple[str, list[str], list[list[str]]]]:
    """Return title, columns and rows of all tables of a study, claims last."""
    rows = []
    for one in claim_results(run):
        points = ", ".join(f"{d:+.1f}" for d in one.difference)
        rows.append([one.claim, one.verdict, f"{one.higher} over {one.lower}: {points or 'not measured'}"])
    scores = [(name, score) for e in picture_events(run) for name, score in e["scores"].items()]
    title = "Equivariance of attention: 1 if it rotates exactly with the image, 0 if not at all"
    equivariance = [(title, ["", "correlation"], [[name, f"{score:.2f}"] for name, score in scores])] if scores else []
    heading = "The paper's claims" if run.recipe_values().get("paper") else "Claims"
    claims = [(heading, ["claim", "result", "difference in points, by seed"], rows)] if rows else []
    return [*(grid.as_text() for grid in result_grids(run)), *equivariance, *claims]


def picture_events(run: RunFolder) -> list[dict[str, Any]]:
    """Return the newest event of each picture of a study."""
    return list({e["number"]: e for e in run.events() if e["kind"] == "picture"}.values())
