"""A page of the pictures that `upright` turns, and of those it is not sure of."""

from collections.abc import Sequence
from pathlib import Path

from rotnet_keras.inference.orientation import Turn
from rotnet_keras.reports.report import render
from rotnet_keras.reports.thumbnails import thumbnail

# Pictures of each kind that are shown, so that a browser opens the page of many thousands.
MOST = 120


def upright_page(turns: Sequence[Turn], summary: str) -> str:
    """HTML in one file, pictures inside: those to be turned, the least sure first, then the doubtful, the surest first.

    Args:
        turns: of files that are still as they were.
        summary: the same in a sentence.
    """
    surest = sorted((turn for turn in turns if turn.clockwise), key=lambda turn: -turn.confidence)
    turned, doubtful = [turn for turn in surest if turn.sure][::-1], [turn for turn in surest if not turn.sure]
    sections = [
        _section("sure", "Not upright", "the least sure first", turned),
        _section("doubtful", "Doubtful, left alone", "the surest first, of those that may not be upright", doubtful),
    ]
    return render("upright.html", {"summary": summary, "sections": sections})


def _section(name: str, title: str, order: str, turns: Sequence[Turn]) -> dict[str, object]:
    shown = turns[:MOST]
    count = f"{len(shown):,} of {len(turns):,}" if len(shown) < len(turns) else f"{len(turns):,}"
    note = f"{count} pictures, {order}." if turns else "None."
    return {"name": name, "title": title, "note": note, "pictures": [_shown(turn) for turn in shown]}


def _shown(turn: Turn) -> dict[str, object]:
    file = Path(turn.file)
    return {
        "file": str(file),
        "name": file.name,
        "clockwise": turn.clockwise,
        "confidence": turn.confidence,
        "before": thumbnail(file),
        "after": thumbnail(file, -turn.clockwise // 90),
    }
