"""The commands about one's own images."""

import io
import json
import re
import sys
from csv import writer
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rotnet_keras.errors import DataError, RecipeError
from rotnet_keras.plain_text import printable
from rotnet_keras.runs import write_atomically
from rotnet_keras.shell import AsJson, RunsDir, find, print_rows

if TYPE_CHECKING:
    import numpy as np

    from rotnet_keras.survey import Survey

# Of a list of files, so many are named.
NAMED = 5


def init(
    images: Annotated[str, typer.Argument(help="A folder of images, or an .npz file of arrays.")],
    output: Annotated[Path | None, typer.Option(help="The recipe to write; called after them by default.")] = None,
    minutes: Annotated[float, typer.Option(min=1, max=1e6, help="How long the training may take here.")] = 60,
    as_json: AsJson = False,
) -> None:
    """Look at images of your own and write a recipe that fits them and this machine."""
    from rotnet_keras.survey import survey

    stem = re.sub(r"[^\w.+-]+", "-", Path(images).expanduser().absolute().stem).strip(".+-") or "images"
    file = output or Path(f"{stem}.toml")
    if file.exists():
        raise RecipeError(f"{file} is there already: move it away, or write elsewhere with --output FILE")
    try:
        images.encode()
    except UnicodeEncodeError:
        raise DataError("The folder's name is no UTF-8 text, which a recipe is: rename it, or link to it") from None
    found = survey(images, _progress)
    if not as_json:
        print_rows(["", ""], _words(found))
        typer.echo("Timing a few steps; this takes half a minute.")
    from rotnet_keras.proposal import propose

    proposal = propose(found, file, minutes)
    file.write_text(proposal.text, encoding="utf-8")
    if as_json:
        typer.echo(json.dumps({**asdict(found), "recipe": str(file), "epochs": proposal.epochs}, indent=2, default=str))
        return
    length = f"{proposal.epochs} epochs in batches of {proposal.batch} images"
    typer.echo(f"Wrote {file}: {length}. Begin: rotnet-keras run {file}")


def anomalies(
    network: Annotated[str, typer.Argument(help="A finished pretraining run, or a rotnet.keras file.")],
    paths: Annotated[list[Path], typer.Argument(help="Pictures, or folders of them.")],
    against: Annotated[
        list[Path] | None, typer.Option(help="Pictures known to be unusual: tells how well the two are told apart.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many are listed, the least usual first.")] = 20,
    csv: Annotated[Path | None, typer.Option(help="Write all of them to this file.")] = None,
    runs_dir: RunsDir = None,
    as_json: AsJson = False,
) -> None:
    """Rank pictures by how badly a network recognises their turns: what it has never seen comes first."""
    source = Path(network) if network.endswith(".keras") else find(network, runs_dir)
    if isinstance(source, Path) and not source.is_file():
        raise DataError(f"no file {source}")
    from rotnet_keras.turns import files_of, judge, see, unlikeliness

    files, others = files_of(paths), files_of(against or [])
    seen = see(judge(source), [*files, *others], _progress)
    scores = unlikeliness(seen.log_probabilities)
    known = set(others)
    rows = sorted(zip(scores.tolist(), map(str, seen.files), strict=True), reverse=True)
    auroc = _auroc(scores, [file in known for file in seen.files]) if others else None
    if csv:
        lines = [["file", "score"], *([name, f"{score:.4f}"] for score, name in rows)]
        write_atomically(csv, _as_csv(lines))
    if as_json:
        found = [{"file": name, "score": score} for score, name in rows]
        unreadable = [{"file": str(file), "reason": why} for file, why in seen.unreadable]
        typer.echo(json.dumps({"auroc": auroc, "pictures": found, "unreadable": unreadable}, indent=2))
        return
    print_rows(["score", "picture"], [[f"{score:.3f}", name] for score, name in rows[:top]])
    if auroc is not None:
        typer.echo(f"AUROC {auroc:.3f}: 1 if every picture of --against scores above every other, 0.5 by chance.")
    if seen.unreadable:
        typer.echo(f"Skipped {_some([f'{file} ({why})' for file, why in seen.unreadable], 'files')}")


def _auroc(scores: "np.ndarray", unusual: list[bool]) -> float:
    from sklearn.metrics import roc_auc_score

    if len(set(unusual)) < 2:
        raise DataError("--against: expected pictures that can be read on both sides, and other ones")
    return float(roc_auc_score(unusual, scores))


def _as_csv(lines: list[list[str]]) -> bytes:
    text = io.StringIO()
    writer(text).writerows(lines)
    return text.getvalue().encode("utf-8", "surrogateescape")


def _progress(what: str, done: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{what}: {done:,}/{total:,}", end="\n" if done == total else "", file=sys.stderr, flush=True)


def _words(found: "Survey") -> list[list[str]]:
    """What there is, in rows of two cells."""
    sides = f"{found.extent} pixels" + (f", half of them up to {found.sides[1]}" if " " in found.extent else "")
    rows = [
        ["images", _counts({"training" if name == "train" else name: n for name, n in found.images.items()})],
        ["files" if found.decoded else "values", _counts(found.kinds)],
        ["short side", sides + ("" if found.square else "; central squares are taken")],
        ["channels", {1: "1, grey", 3: "3, colour"}.get(found.channels, str(found.channels))],
        ["classes", _classes(found.classes)],
    ]
    if found.decoded:
        rows += [
            ["turned by EXIF", f"{found.turned:,}" + (", which is applied" if found.turned else "")],
            ["duplicates", _some([" = ".join(group) for group in found.duplicates], "groups of equal files")],
        ]
        if found.shared:
            rows.append(["", f"{found.shared:,} of them in several splits: a test on them tells too much"])
        rows.append(["unreadable", _some([f"{name} ({why})" for name, why in found.unreadable], "files, skipped")])
        if found.decoded < sum(found.images.values()):
            rows.append(["", f"damage behind a header was looked for in {found.decoded:,} files"])
    return rows


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())


def _classes(classes: dict[str, int]) -> str:
    if not classes:
        return "none: no folder per class, no labels"
    fewest, most = min(classes.values()), max(classes.values())
    return f"{len(classes):,}, of {fewest:,}" + (f" to {most:,} images" if most > fewest else " images each")


def _some(names: list[str], what: str) -> str:
    if not names:
        return "none"
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return f"{len(names):,} {what}: {printable(', '.join(names[:NAMED]))}{more}"


COMMANDS = (init, anomalies)
