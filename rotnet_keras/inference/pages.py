"""HTML pages for a browser: what `upright`, `alike`, `predict`, `select` and `duplicates` find.

Each page is one file with small JPEG copies of the images inside, so that it can be moved and sent.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from rotnet_keras.data.decoding import UnreadableImage, read_displayed
from rotnet_keras.inference.corrections import Correction
from rotnet_keras.inference.similarity import Match
from rotnet_keras.reports.report import render

# Side of a thumbnail, in pixels.
SIDE = 160
# Images in each section of the upright page, so that a browser can open the page of a large collection.
MOST = 120

# Which channels of images a page shows.
Channels = Sequence[int] | None


def thumbnail(file: Path, quarters: int = 0, channels: Channels = None) -> str:
    """The central square of an image as a small JPEG in base64; empty where the file cannot be read.

    Args:
        file: the image.
        quarters: how many times to rotate it by 90 degrees, counter-clockwise.
        channels: those that are red, green and blue, or one that is grey; the first three by default.
    """
    written = BytesIO()
    try:
        pixels = np.rot90(read_displayed(file, SIDE, shown=channels), quarters)
    except UnreadableImage:
        return ""
    Image.fromarray(np.ascontiguousarray(pixels)).save(written, "JPEG", quality=85)
    return base64.b64encode(written.getvalue()).decode()


def upright_page(corrections: Sequence[Correction], summary: str, channels: Channels = None) -> str:
    """The HTML page of the images that are not upright, before and after rotation.

    The first section has the confident corrections, least confident first: mistakes are found at its top. The second
    has the doubtful ones, most confident first.

    Args:
        corrections: of files that have not been rotated yet.
        summary: the counts in a few sentences, shown at the top.
        channels: as of `thumbnail`.
    """
    ranked = sorted((each for each in corrections if each.clockwise), key=lambda each: -each.confidence)
    confident = [each for each in ranked if each.confident][::-1]
    doubtful = [each for each in ranked if not each.confident]
    sections = [
        _section("confident", "Not upright", "the least confident first", confident, channels),
        _section("doubtful", "Doubtful, left as they are", "the most confident first", doubtful, channels),
    ]
    return render("upright.html", {"summary": summary, "sections": sections})


def _section(
    name: str, title: str, order: str, corrections: Sequence[Correction], channels: Channels
) -> dict[str, object]:
    shown = corrections[:MOST]
    count = f"{len(shown):,} of {len(corrections):,}" if len(shown) < len(corrections) else f"{len(corrections):,}"
    note = f"{count} images, {order}." if corrections else "None."
    images = [_before_and_after(each, channels) for each in shown]
    return {"name": name, "title": title, "note": note, "images": images}


def _before_and_after(correction: Correction, channels: Channels) -> dict[str, object]:
    file = Path(correction.file)
    return {
        "file": str(file),
        "name": file.name,
        "clockwise": correction.clockwise,
        "confidence": correction.confidence,
        "before": thumbnail(file, 0, channels),
        "after": thumbnail(file, -correction.clockwise // 90, channels),
    }


def similar_page(
    queries: Sequence[Path], matches: Sequence[Sequence[Match]], tap: str, channels: Channels = None
) -> str:
    """The HTML page of some query images, each followed by the images most similar to it.

    Args:
        queries: the images that were searched for.
        matches: for each query, its matches in the order to show them.
        tap: the layer whose features were compared.
        channels: as of `thumbnail`.
    """
    rows = [
        {
            "query": {"file": str(query), "name": query.name, "base64": thumbnail(query, 0, channels)},
            "matches": [
                {
                    "file": match.file,
                    "name": Path(match.file).name,
                    "similarity": match.similarity,
                    "base64": thumbnail(Path(match.path), 0, channels),
                }
                for match in found
            ],
        }
        for query, found in zip(queries, matches, strict=True)
    ]
    title = f"Images similar to {', '.join(query.name for query in queries[:3])}"
    return render("alike.html", {"title": title, "tap": tap, "rows": rows})


@dataclass(frozen=True)
class Section:
    """A part of a page: groups of images under a title.

    Attributes:
        title: of the section.
        note: a sentence below it.
        groups: each a row of (file, caption).
    """

    title: str
    note: str
    groups: Sequence[Sequence[tuple[str, str]]]


def images_page(title: str, summary: str, sections: Sequence[Section], channels: Channels = None) -> str:
    """An HTML page of groups of images, each image with a caption.

    Args:
        title: of the page.
        summary: the counts in a few sentences, shown at the top.
        sections: those without groups are left out.
        channels: as of `thumbnail`.
    """
    shown = [
        {
            "title": section.title,
            "note": section.note,
            "groups": [
                [
                    {
                        "file": file,
                        "name": Path(file).name,
                        "caption": caption,
                        "base64": thumbnail(Path(file), 0, channels),
                    }
                    for file, caption in group
                ]
                for group in section.groups
            ],
        }
        for section in sections
        if section.groups
    ]
    return render("images.html", {"title": title, "summary": summary, "sections": shown})
