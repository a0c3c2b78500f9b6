"""The commands about turns of one's own pictures."""

import io
import json
from collections.abc import Iterator
from csv import writer
from dataclasses import asdict, astuple
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rotnet_keras.cli.options import AsJson, RunsDir, check_places, find_network, print_rows, some, tell, tell_progress
from rotnet_keras.errors import DataError, RecipeError
from rotnet_keras.files import write_atomically

if TYPE_CHECKING:
    import numpy as np

    from rotnet_keras.inference.orientation import Judge, Turn
    from rotnet_keras.runs.folder import RunFolder

NETWORKS = "A finished pretraining run, weights that ship, or a rotnet.keras file."
Network = Annotated[str, typer.Option(help=NETWORKS)]
# The network that ships for photos.
PHOTOS = "compact5_photos"
MinConfidence = Annotated[float, typer.Option(min=0, max=1, help="Of less sure turns nothing is done.")]


def anomalies(
    network: Annotated[str, typer.Argument(help=NETWORKS)],
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
    check_places(csv)
    source = _network(network, runs_dir)
    from rotnet_keras.inference.loading import files_of
    from rotnet_keras.inference.orientation import judge, see, unlikeliness

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
        tell(f"AUROC {auroc:.3f}: 1 if every picture of --against scores above every other, 0.5 by chance.")
    if seen.unreadable:
        tell(f"Skipped {some([f'{file} ({why})' for file, why in seen.unreadable], 'files')}")


def upright(
    paths: Annotated[list[Path], typer.Argument(help="Pictures, or folders of them.")],
    network: Network = PHOTOS,
    write: Annotated[
        str | None, typer.Option(help="exif turns JPEG files, pixels PNG and BMP files, neither with a loss.")
    ] = None,
    min_confidence: MinConfidence = 0.9,
    page: Annotated[Path | None, typer.Option(help="Write a page that shows what is turned and what doubtful.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the turn of each picture to this file.")] = None,
    runs_dir: RunsDir = None,
    as_json: AsJson = False,
) -> None:
    """Tell which turn each picture needs to be upright, and turn it if asked to."""
    if write not in (None, "exif", "pixels"):
        raise RecipeError(f"--write: expected exif or pixels, got {write!r}")
    check_places(page, csv)
    source = _network(network, runs_dir)
    from rotnet_keras.inference.loading import files_of
    from rotnet_keras.inference.orientation import needed_turns, see

    files = files_of(paths)
    told, temperature, doubt = _calibrated(source)
    seen = see(told, files, tell_progress)
    turns = needed_turns(seen, temperature, min_confidence)
    if page:
        from rotnet_keras.inference.upright_page import upright_page

        write_atomically(page, upright_page(turns, _summary(turns)).encode())
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
        tell(line)
    if doubt:
        tell(f"Confidences are not calibrated: {doubt}.")
    if page:
        tell(f"Page: {page}")


def measure_upright(
    paths: Annotated[list[Path], typer.Argument(help="Upright pictures, or folders of them, not trained on.")],
    to: Annotated[Path, typer.Option(help="The folder for upright.md, upright.json and reliability.png.")],
    network: Network = PHOTOS,
    min_confidence: MinConfidence = 0.9,
    seed: Annotated[int, typer.Option(min=0, help="Of the turns.")] = 0,
    runs_dir: RunsDir = None,
    as_json: AsJson = False,
) -> None:
    """Measure how well `upright` does: turn upright pictures at random and see what it makes of them."""
    check_places(to)
    source = _network(network, runs_dir)
    from rotnet_keras.inference.loading import files_of
    from rotnet_keras.inference.orientation_metrics import measure

    files = files_of(paths)
    told, temperature, doubt = _calibrated(source)
    found = measure(told, files, temperature, min_confidence, seed, tell_progress)
    names = " ".join("/".join(path.absolute().parts[-2:]) for path in paths)
    command = f"rotnet-keras measure-upright {names} --network {Path(network).name} --to {to.name}"
    found.write(to, f"{command} --min-confidence {min_confidence:g} --seed {seed}", doubt)
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=2))
        return
    print_rows([f"{found.accuracy.of:,} pictures", "%", "95 % interval"], found.rows())
    if found.unreadable:
        tell(f"Skipped {some([f'{name} ({why})' for name, why in found.unreadable], 'files')}")
    if doubt:
        tell(f"Confidences are not calibrated: {doubt}.")
    tell(f"Wrote {to / 'upright.md'}, with a plot and the figures as JSON beside it.")


def _calibrated(source: "Path | RunFolder") -> "tuple[Judge, float, str]":
    """The network, the temperature that its run's validation images ask for, and why there is none, or nothing."""
    from rotnet_keras.inference.orientation import judge, temperature_of
    from rotnet_keras.models.rotation import RIGHT_ANGLES
    from rotnet_keras.runs.zoo import card_of

    told = judge(source)
    if told.angles != RIGHT_ANGLES:
        name = source if isinstance(source, Path) else source.name
        raise DataError(f"{name}: expected a network that knows 0, 90, 180 and 270 degrees, not {told.angles}")
    if isinstance(source, Path):
        return told, 1.0, "a file alone holds no images to do so; name its run"
    if card := card_of(source):
        fitted = card["temperature"]
        return told, fitted or 1.0, "" if fitted else "its card has no temperature"
    try:
        return told, temperature_of(source, told), ""
    except DataError as error:
        return told, 1.0, str(error)


def _summary(turns: "list[Turn]") -> str:
    """How many pictures are what, in a sentence."""
    needed, doubtful = sum(turn.needed for turn in turns), sum(not turn.sure for turn in turns)
    return (
        f"{needed:,} of {len(turns):,} pictures are turned, {doubtful:,} are doubtful and left alone, "
        f"{len(turns) - needed - doubtful:,} are upright."
    )


def _told(turns: "list[Turn]", failed: list[tuple[str, str]], write: str | None) -> Iterator[str]:
    """The turns in words."""
    needed = [turn for turn in turns if turn.needed]
    yield _summary(turns)
    if failed:
        yield f"Skipped {some([f'{name} ({why})' for name, why in failed], 'files')}"
    if write:
        skipped = {name for name, _ in failed}
        yield f"Turned {sum(str(turn.file) not in skipped for turn in needed):,} files."
    elif needed:
        yield "Nothing was changed: --write exif turns JPEG files, --write pixels PNG and BMP files."


def _turned(turn: "Turn", write: str) -> str:
    """Turn a picture's file; why it could not be, or nothing."""
    from rotnet_keras.data.decoding import UnreadableImage
    from rotnet_keras.inference.lossless_rotation import turn_by_exif, turn_pixels

    try:
        (turn_by_exif if write == "exif" else turn_pixels)(turn.file, -turn.clockwise // 90)
    except (UnreadableImage, OSError) as error:
        return str(error)
    return ""


def _network(name: str, runs_dir: Path | None) -> "Path | RunFolder":
    """The run, the network that ships, or the .keras file, of this name."""
    if not name.endswith(".keras"):
        return find_network(name, runs_dir)
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


COMMANDS = (anomalies, upright, measure_upright)
