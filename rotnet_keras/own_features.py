"""The commands about features of one's own pictures."""

import base64
import json
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

import typer

from rotnet_keras.errors import DataError, RecipeError
from rotnet_keras.runs import write_atomically
from rotnet_keras.shell import AsJson, RunsDir, find, print_rows, some, tell_progress

# Of a picture on a page, in pixels.
THUMBNAIL = 160


def embed(
    network: Annotated[str, typer.Argument(help="A finished run, or a backbone.keras file.")],
    paths: Annotated[list[Path], typer.Argument(help="Pictures, or folders of them.")],
    to: Annotated[Path, typer.Option(help="What to write: .npz or .parquet.")],
    tap: Annotated[str | None, typer.Option(help="The layer to read; the middle one by default.")] = None,
    runs_dir: RunsDir = None,
) -> None:
    """Write the features of pictures to a file, for search, plots and classifiers."""
    from rotnet_keras.embedding import SUFFIXES
    from rotnet_keras.embedding import embed as features_of
    from rotnet_keras.viewing import files_of

    if to.suffix not in SUFFIXES:
        raise RecipeError(f"--to: expected a name that ends in {' or '.join(SUFFIXES)}, got {to}")
    file = Path(network) if network.endswith(".keras") else find(network, runs_dir).backbone
    if not file.is_file():
        raise DataError(f"no file {file}")
    features, unreadable = features_of(file, tap, files_of(paths), tell_progress)
    features.save(to)
    count, length = features.values.shape
    typer.echo(f"Wrote {to}: {count:,} pictures, {length:,} features each, of {features.tap}.")
    if unreadable:
        typer.echo(f"Skipped {some([f'{file} ({why})' for file, why in unreadable], 'files')}")
    typer.echo(f"Look-alikes: rotnet-keras alike {to} PICTURE --page alike.html")


def alike(
    features: Annotated[Path, typer.Argument(help="A file that `embed` wrote.")],
    pictures: Annotated[list[Path], typer.Argument(help="Pictures, among these or other ones.")],
    top: Annotated[int, typer.Option(min=1, help="How many of each are wanted.")] = 8,
    page: Annotated[Path | None, typer.Option(help="Also write a page that shows them.")] = None,
    as_json: AsJson = False,
) -> None:
    """Find the pictures whose features are most like those of others."""
    from rotnet_keras.embedding import load_features, nearest, rows_of

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
        from rotnet_keras.report import render

        shown = [
            {"picture": _shown(one["picture"]), "alike": [_shown(**other) for other in one["alike"]]} for one in found
        ]
        about = {"title": f"Like {', '.join(picture.name for picture in pictures[:3])}", "tap": known.tap}
        write_atomically(page, render("alike.html", {**about, "found": shown}).encode())
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    for one in found:
        typer.echo(f"Like {one['picture']}:")
        print_rows(["similarity", "picture"], [[f"{each['similarity']:.3f}", each["file"]] for each in one["alike"]])
    if page:
        typer.echo(f"Page: {page}")


def _shown(file: str, similarity: float | None = None) -> dict[str, Any]:
    """A picture's name and itself, small, for a page."""
    from PIL import Image

    from rotnet_keras.images import UnreadableImage, read_image

    content = ""
    try:
        written = BytesIO()
        Image.fromarray(read_image(Path(file), THUMBNAIL, 3)).save(written, "JPEG", quality=85)
        content = base64.b64encode(written.getvalue()).decode()
    except UnreadableImage:
        pass
    return {"name": file, "similarity": similarity, "base64": content}


COMMANDS = (embed, alike)
