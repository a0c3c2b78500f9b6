"""The commands about features of one's own pictures."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rotnet_keras.cli.options import AsJson, RunsDir, check_places, find_network, print_rows, some, tell, tell_progress
from rotnet_keras.errors import DataError, RecipeError
from rotnet_keras.files import write_atomically

if TYPE_CHECKING:
    from rotnet_keras.inference.few_labels import Accuracy

NAMES = {"pretrained": "pretrained", "random": "random weights", "pixels": "raw pixels"}


def embed(
    network: Annotated[str, typer.Argument(help="A finished run, weights that ship, or a backbone.keras file.")],
    paths: Annotated[list[Path], typer.Argument(help="Pictures, or folders of them.")],
    to: Annotated[Path, typer.Option(help="What to write: .npz or .parquet.")],
    tap: Annotated[str | None, typer.Option(help="The layer to read; the middle one by default.")] = None,
    runs_dir: RunsDir = None,
) -> None:
    """Write the features of pictures to a file, for search, plots and classifiers."""
    from rotnet_keras.inference.embeddings import SUFFIXES
    from rotnet_keras.inference.embeddings import embed as features_of
    from rotnet_keras.inference.loading import files_of

    if to.suffix not in SUFFIXES:
        raise RecipeError(f"--to: expected a name that ends in {' or '.join(SUFFIXES)}, got {to}")
    check_places(to)
    file = _backbone(network, runs_dir)
    features, unreadable = features_of(file, tap, files_of(paths), tell_progress)
    features.save(to)
    count, length = features.values.shape
    tell(f"Wrote {to}: {count:,} pictures, {length:,} features each, of {features.tap}.")
    if unreadable:
        tell(f"Skipped {some([f'{file} ({why})' for file, why in unreadable], 'files')}")
    tell(f"Look-alikes: rotnet-keras alike {to} PICTURE --page alike.html")
    tell(f"All in a plane: rotnet-keras plot {to} --to features.png")


def alike(
    features: Annotated[Path, typer.Argument(help="A file that `embed` wrote.")],
    pictures: Annotated[list[Path], typer.Argument(help="Pictures, among these or other ones.")],
    top: Annotated[int, typer.Option(min=1, help="How many of each are wanted.")] = 8,
    page: Annotated[Path | None, typer.Option(help="Also write a page that shows them.")] = None,
    as_json: AsJson = False,
) -> None:
    """Find the pictures whose features are most like those of others."""
    check_places(page)
    from rotnet_keras.inference.embeddings import load_features, nearest, rows_of

    known = load_features(features)
    rows, similarity = nearest(known, rows_of(known, pictures), top + 1)
    found: list[dict[str, Any]] = []
    for picture, row, cosines in zip(pictures, rows, similarity, strict=True):
        others = [
            {"file": known.files[number], "similarity": round(float(cosine), 4)}
            for number, cosine in zip(row, cosines, strict=True)
            if Path(known.files[number]).absolute() != picture.absolute()
        ]
        found.append({"picture": str(picture), "alike": others[:top]})
    if page:
        from rotnet_keras.reports.report import render
        from rotnet_keras.reports.thumbnails import thumbnail

        shown = [
            [{**one, "base64": thumbnail(Path(one["file"]))} for one in [{"file": each["picture"]}, *each["alike"]]]
            for each in found
        ]
        about = {"title": f"Like {', '.join(picture.name for picture in pictures[:3])}", "tap": known.tap}
        write_atomically(page, render("alike.html", {**about, "found": shown}).encode())
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    for one in found:
        tell(f"Like {one['picture']}:")
        print_rows(["similarity", "picture"], [[f"{each['similarity']:.3f}", each["file"]] for each in one["alike"]])
    if page:
        tell(f"Page: {page}")


def plot(
    features: Annotated[Path, typer.Argument(help="A file that `embed` wrote.")],
    to: Annotated[Path, typer.Option(help="What to write: .png, .svg or .pdf.")],
) -> None:
    """Draw features in the plane, by PCA and by t-SNE, coloured by the folders that the pictures lie in."""
    if to.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise RecipeError(f"--to: expected a name that ends in .png, .svg or .pdf, got {to}")
    check_places(to)
    from rotnet_keras.inference.embeddings import load_features
    from rotnet_keras.inference.projections import draw_projections

    tell(f"Wrote {to}: {draw_projections(load_features(features), to)}.")


def probe(
    network: Annotated[str, typer.Argument(help="A finished run, weights that ship, or a backbone.keras file.")],
    labels: Annotated[Path, typer.Option(help="A CSV file with the columns file,label, or a folder per class.")],
    tap: Annotated[str | None, typer.Option(help="The layer to read; the middle one by default.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the parts held out and of the random weights.")] = 0,
    runs_dir: RunsDir = None,
    as_json: AsJson = False,
) -> None:
    """Tell by a handful of labels whether pretraining helped: against random weights and raw pixels."""
    from rotnet_keras.inference.few_labels import compare, features_of, read_labels

    file = _backbone(network, runs_dir)
    known = dict(read_labels(labels))
    features, layer, unreadable = features_of(file, tap, list(known), seed, tell_progress)
    skipped = {path for path, _ in unreadable}
    classes = [label for path, label in known.items() if path not in skipped]
    found = compare(features, classes, seed)
    if as_json:
        failures = [{"file": str(path), "reason": why} for path, why in unreadable]
        typer.echo(json.dumps({**asdict(found), "tap": layer, "pictures": len(classes), "failed": failures}, indent=2))
        return
    tell(
        f"Linear classifiers on {layer}, {len(classes):,} pictures of {len(set(classes)):,} classes, held out in turn:"
    )
    rows = [[NAMES[name], _percent(each.mean), f"{_percent(each.low)} to {_percent(each.high)}"]
            for name, each in found.accuracies.items()]  # fmt: skip
    print_rows(
        ["features", "accuracy, %", "95 % interval"], [*rows, ["most frequent class", _percent(found.chance), ""]]
    )
    tell(_verdict(found.gain["random"], found.gain["pixels"]))
    if unreadable:
        tell(f"Skipped {some([f'{path} ({why})' for path, why in unreadable], 'files')}")


def _verdict(over_random: "Accuracy", over_pixels: "Accuracy") -> str:
    """Whether pretraining helped, in a sentence."""
    against = f"{100 * over_random.mean:+.1f} points ({100 * over_random.low:+.1f} to {100 * over_random.high:+.1f})"
    if over_random.low > 0 and over_pixels.low > 0:
        return f"Pretraining helped: {against} over random weights, and more than raw pixels give."
    if over_random.low > 0:
        return f"Pretraining helped, {against} over random weights, but raw pixels are not clearly worse."
    if over_random.high < 0:
        return f"Pretraining did harm: {against} over random weights."
    return f"These labels do not tell whether pretraining helped: {against} over random weights. More of them may."


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _backbone(network: str, runs_dir: Path | None) -> Path:
    file = Path(network) if network.endswith(".keras") else find_network(network, runs_dir).backbone
    if not file.is_file():
        raise DataError(f"no file {file}")
    return file


COMMANDS = (probe, embed, alike, plot)
