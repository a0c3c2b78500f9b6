"""Tags and a note that people give to a run, in `tags.jsonl`: they change neither its recipe nor its events."""

import json
import re
import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from rotnet_keras.errors import RecipeError, RunError
from rotnet_keras.files import open_to_append, parse_json, read_file
from rotnet_keras.runs.events import lock
from rotnet_keras.runs.folder import RunFolder

TAG = re.compile(r"\w[\w.+/-]{0,39}")
MAX_TAGS, MAX_NOTE = 20, 2000
# A larger file is none of ours.
MAX_BYTES = 1 << 20


class Labels(NamedTuple):
    """What people say about a run: tags in the order in which they were given, and a note, empty if there is none."""

    tags: tuple[str, ...]
    note: str


def read_labels(run: RunFolder) -> Labels:
    """Return the tags and the note of a run; the last ones written count, and unreadable lines are left out."""
    try:
        lines = read_file(run.tags_file, MAX_BYTES, run.path).split(b"\n")
    except OSError:
        return Labels((), "")
    found: dict[str, Any] = {}
    for line in lines:
        try:
            event = parse_json(line)
        except ValueError:
            continue
        if isinstance(event, dict) and event.get("kind") in ("tags", "note"):
            found[event["kind"]] = event.get(event["kind"])
    tags, note = found.get("tags"), found.get("note")
    known = [tag for tag in tags if isinstance(tag, str) and TAG.fullmatch(tag)] if isinstance(tags, list) else []
    return Labels(tuple(known[:MAX_TAGS]), note[:MAX_NOTE] if isinstance(note, str) else "")


def change_tags(run: RunFolder, added: Sequence[str] = (), removed: Iterable[str] = ()) -> tuple[str, ...]:
    """Add tags to a run and remove others; return those that it has then.

    Raises:
        RecipeError: a tag is no single word, or there would be too many.
        RunError: the run folder cannot be written.
    """
    for tag in added:
        if not TAG.fullmatch(tag):
            raise RecipeError(
                f"{tag!r} is no tag: expected a word of letters, digits and . + / - _, at most 40 of them"
            )
    gone = set(removed)
    tags = tuple(tag for tag in dict.fromkeys((*read_labels(run).tags, *added)) if tag not in gone)
    if len(tags) > MAX_TAGS:
        raise RecipeError(f"{run.name} would have {len(tags)} tags, more than {MAX_TAGS}: remove some first")
    _write(run, "tags", list(tags))
    return tags


def write_note(run: RunFolder, note: str) -> None:
    """Set the note of a run; an empty one removes it.

    Raises:
        RecipeError: it is too long.
        RunError: the run folder cannot be written.
    """
    if len(note) > MAX_NOTE:
        raise RecipeError(f"a note has at most {MAX_NOTE:,} characters; got {len(note):,}")
    _write(run, "note", note)


def _write(run: RunFolder, kind: str, value: Any) -> None:
    line = json.dumps({"kind": kind, "time": round(time.time(), 3), kind: value}, ensure_ascii=False)
    try:
        with open_to_append(run.tags_file, run.path) as file:
            lock(file, run.tags_file)
            file.write(b"\n" * bool(file.tell()) + line.encode("utf-8", "replace"))
    except BlockingIOError:
        raise RunError(f"another process is writing {run.tags_file}; try again") from None
    except OSError as error:
        raise RunError(f"{run.tags_file} cannot be written: {error.strerror}") from None
