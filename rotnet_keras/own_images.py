"""The commands about one's own images."""

import io
import json
import re
from collections.abc import Iterator
from csv import writer
from dataclasses import asdict, astuple
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rotnet_keras.errors import DataError, RecipeError
from rotnet_keras.runs import write_atomically
from rotnet_keras.shell import AsJson, RunsDir, find, print_rows, some, tell_progress

if TYPE_CHECKING:
    import numpy as np

    from rotnet_keras.runs import RunFolder
    from rotnet_keras.survey import Survey
    from rotnet_keras.turns import Turn


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
    found = survey(images, tell_progress)
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
    source = _network(network, runs_dir)
    from rotnet_keras.turns import judge, see, unlikeliness
    from rotnet_keras.viewing import files_of

    files, others = files_of(paths), files_of(against or [])
    seen = see(judge(source), [*files, *others], tell_progress)
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
        typer.echo(f"Skipped {some([f'{file} ({why})' for file, why in seen.unreadable], 'files')}")


def upright(
    paths: Annotated[list[Path], typer.Argument(help="Pictures, or folders of them.")],
    network: Annotated[str, typer.Option(help="A finished pretraining run, or a rotnet.keras file.")],
    write: Annotated[
        str | None, typer.Option(help="exif turns JPEG files, pixels PNG and BMP files, neither with a loss.")
    ] = None,
    min_confidence: Annotated[float, typer.Option(min=0, max=1, help="Of less sure turns nothing is done.")] = 0.9,
    csv: Annotated[Path | None, typer.Option(help="Write the turn of each picture to this file.")] = None,
    runs_dir: RunsDir = None,
    as_json: AsJson = False,
) -> None:
    """Tell which turn each picture needs to be upright, and turn it if asked to."""
    if write not in (None, "exif", "pixels"):
        raise RecipeError(f"--write: expected exif or pixels, got {write!r}")
    source = _network(network, runs_dir)
    from rotnet_keras.rotation import RIGHT_ANGLES
    from rotnet_keras.turns import judge, needed_turns, see, temperature_of
    from rotnet_keras.viewing import files_of

    files = files_of(paths)
    told = judge(source)
    if told.angles != RIGHT_ANGLES:
        raise DataError(f"{network}: expected a network that knows 0, 90, 180 and 270 degrees, not {told.angles}")
    temperature, doubt = 1.0, "a file alone holds no images to do so; name its run"
    if not isinstance(source, Path):
        try:
            temperature, doubt = temperature_of(source, told), ""
        except DataError as error:
            doubt = str(error)
    seen = see(told, files, tell_progress)
    turns = needed_turns(seen, temperature, min_confidence)
    failed = [(str(file), why) for file, why in seen.unreadable]
    if write:
        failed += [(str(turn.file), why) for turn in turns if turn.needed and (why := _turned(turn, write))]
    if csv:
        rows = [[str(cell) for cell in astuple(turn)] for turn in turns]
        write_atomically(csv, _as_csv([["file", "clockwise", "confidence", "sure"], *rows]))
    if as_json:
        failures = [{"file": name, "reason": why} for name, why in failed]
        pictures = [asdict(turn) for turn in turns]
        found = {"temperature": temperature, "pictures": pictures, "failed": failures}
        typer.echo(json.dumps(found, indent=2, default=str))
        return
    needed = [turn for turn in turns if turn.needed]
    if needed:
        rows = [[str(turn.clockwise), f"{turn.confidence:.3f}", str(turn.file)] for turn in needed]
        print_rows(["clockwise", "confidence", "picture"], rows)
    for line in _told(turns, failed, write):
        typer.echo(line)
    if doubt:
        typer.echo(f"Confidences are not calibrated: {doubt}.")


def _told(turns: "list[Turn]", failed: list[tuple[str, str]], write: str | None) -> Iterator[str]:
    """The turns in words."""
    needed = [turn for turn in turns if turn.needed]
    doubtful = sum(not turn.sure for turn in turns)
    yield (
        f"{len(needed):,} of {len(turns):,} pictures are turned, {doubtful:,} are doubtful and left alone, "
        f"{len(turns) - len(needed) - doubtful:,} are upright."
    )
    if failed:
        yield f"Skipped {some([f'{name} ({why})' for name, why in failed], 'files')}"
    if write:
        skipped = {name for name, _ in failed}
        yield f"Turned {sum(str(turn.file) not in skipped for turn in needed):,} files."
    elif needed:
        yield "Nothing was changed: --write exif turns JPEG files, --write pixels PNG and BMP files."


def _turned(turn: "Turn", write: str) -> str:
    """Turn a picture's file; why it could not be, or nothing."""
    from rotnet_keras.images import UnreadableImage
    from rotnet_keras.orientation import turn_by_exif, turn_pixels

    try:
        (turn_by_exif if write == "exif" else turn_pixels)(turn.file, -turn.clockwise // 90)
    except (UnreadableImage, OSError) as error:
        return str(error)
    return ""


def _network(name: str, runs_dir: Path | None) -> "Path | RunFolder":
    """The run, or the .keras file, of this name."""
    if not name.endswith(".keras"):
        return find(name, runs_dir)
    if not Path(name).is_file():
        raise DataError(f"no file {name}")
    return Path(name)


def _auroc(scores: "np.ndarray", unusual: list[bool]) -> float:
    from sklearn.metrics import roc_auc_score

    if len(set(unusual)) < 2:
        raise DataError("--against: expected pictures that can be read on both sides, and other ones")
    return float(roc_auc_score(unusual, scores))


def _as_csv(lines: list[list[str]]) -> bytes:
    text = io.StringIO()
    writer(text).writerows(lines)
    return text.getvalue().encode("utf-8", "surrogateescape")


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
            ["duplicates", some([" = ".join(group) for group in found.duplicates], "groups of equal files")],
        ]
        if found.shared:
            rows.append(["", f"{found.shared:,} of them in several splits: a test on them tells too much"])
        rows.append(["unreadable", some([f"{name} ({why})" for name, why in found.unreadable], "files, skipped")])
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


COMMANDS = (init, anomalies, upright)
