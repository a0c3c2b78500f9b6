"""What the members of a tar file are: where each image lies in it, and the text of its label.

Members are read where they are, and never extracted. A shard is data from strangers: its links are not followed, its
sizes are compared with its length, and a label of more than a few bytes is not read.
"""

import os
import re
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import RawIOBase
from pathlib import Path
from typing import Any

from rotnet_keras.data.layout import IMAGE_SUFFIXES
from rotnet_keras.errors import DataError
from rotnet_keras.files import open_file, parse_json

# Bytes of a tar file's block, and of what is read of it at once: headers with long names are shorter.
BLOCK, MOST_HEADER = tarfile.BLOCKSIZE, 1 << 20
# A sample's stem and what its member is, which WebDataset separates at the first dot of the file's own name.
STEM = re.compile(r"((?:.*/)?[^/.][^/.]*)\.([^/]+)", re.DOTALL)
# What may hold the label of an image, in the order in which it is looked for, and the bytes that it may have.
LABELS = {"cls": 1000, "json": 1 << 20, "txt": 10_000}
# The keys of a JSON label, and the characters of a class name.
JSON_KEYS = ("label", "cls", "class", "class_name", "class_id", "category")
LONGEST_CLASS = 200

# What is left out, with the number and one example of each.
SENTENCES = {
    "links": "{n:,} members are links, which are not followed: {example}",
    "others": "{n:,} members are devices, pipes or of kinds that are not read: {example}",
    "imageless": "{n:,} samples have no image: {example}",
    "several": "{n:,} samples have several images, of which one is used: {example}",
    "repeated": "{n:,} members have the name of another one in their sample: {example}",
    "labels": "{n:,} labels cannot be read: {example}",
    "endless": "{n:,} shards lack the mark of a tar file's end and may be cut off: {example}",
}


# The name, the offset and the length of each member of a sample, by what it is.
_Sample = dict[str, tuple[str, tuple[int, int]]]


@dataclass
class Members:
    """The images of a shard, in order.

    Attributes:
        names: of each image in the shard.
        places: (offset, length) of each in bytes.
        texts: what each label says; None without one.
        kinds: which of `LABELS` each label is from; None without one.
        left_out: the number and an example of what is not used, under the keys of `SENTENCES`, and the hidden members.
    """

    names: list[str] = field(default_factory=list)
    places: list[tuple[int, int]] = field(default_factory=list)
    texts: list[str | None] = field(default_factory=list)
    kinds: list[str | None] = field(default_factory=list)
    left_out: dict[str, tuple[int, str]] = field(default_factory=dict)

    def leave_out(self, what: str, example: str) -> None:
        """Count what is not used."""
        count, first = self.left_out.get(what, (0, example))
        self.left_out[what] = count + 1, first


class _Headers(RawIOBase):
    """A tar file for the eyes of `tarfile`, which reads no more of it at once than a header may have."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._place = descriptor, 0

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MOST_HEADER:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        content = os.pread(self._descriptor, size, self._place)
        self._place += len(content)
        return content

    def seek(self, place: int, whence: int = os.SEEK_SET) -> int:
        if whence != os.SEEK_SET or place < 0:
            raise tarfile.ReadError("a header that leads backwards")
        self._place = place
        return place

    def tell(self) -> int:
        return self._place


def read_members(path: Path) -> Members:
    """Find the images of a shard and their labels. Of images, nothing is read.

    Raises:
        DataError: it is no tar file, is damaged, or ends within a member.
    """
    found = Members()
    try:
        with open_file(path) as file:
            descriptor = file.fileno()

            def read(place: tuple[int, int]) -> bytes:
                return os.pread(descriptor, place[1], place[0])

            stem, sample = "", _Sample()
            for member in _members(path, descriptor, found):
                parts = _parts(member, found)
                if parts is None:
                    continue
                if parts[0] != stem:
                    _add_sample(found, stem, sample, read)
                    stem, sample = parts[0], _Sample()
                if parts[1] in sample:
                    found.leave_out("repeated", member.name)
                else:
                    sample[parts[1]] = member.name, (member.offset_data, member.size)
            _add_sample(found, stem, sample, read)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    return found


def _members(path: Path, descriptor: int, found: Members) -> Iterator[tarfile.TarInfo]:
    """Yield the members of a tar file.

    Raises:
        DataError: it is no tar file, is damaged, or ends within a member.
    """
    length, place = os.fstat(descriptor).st_size, 0
    try:
        archive: Any = tarfile.TarFile(fileobj=_Headers(descriptor), errors="surrogateescape")  # type: ignore[arg-type]
        while (member := archive.next()) is not None:
            # They would all be kept.
            archive.members.clear()
            if not place <= member.offset < member.offset_data <= archive.offset or member.size < 0:
                raise tarfile.ReadError("a header that leads backwards")
            place = archive.offset
            if member.offset_data + member.size > length:
                raise DataError(f"{path}: ends within its member {member.name!r}: copy or download the shard again")
            yield member
        place = archive.offset
    except (tarfile.TarError, ValueError, RecursionError, OverflowError) as error:
        raise DataError(
            f"{path}: no tar file, or damaged after {place:,} bytes ({str(error) or type(error).__name__}): copy or "
            "download the shard again"
        ) from None
    end = os.pread(descriptor, BLOCK, place)
    if any(end):
        raise DataError(f"{path}: damaged after {place:,} bytes: copy or download the shard again")
    if not end:
        found.leave_out("endless", path.name)


def _parts(member: tarfile.TarInfo, found: Members) -> tuple[str, str] | None:
    """Return the stem of a member and what it is, such as jpg; None for what belongs to no sample."""
    own = member.name.rpartition("/")[2]
    if member.isdir():
        return None
    if member.issym() or member.islnk():
        found.leave_out("links", member.name)
    elif member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse() or "\0" in member.name:
        found.leave_out("others", member.name)
    elif own.startswith(".") or (own.startswith("__") and own.endswith("__")):
        found.leave_out("hidden", member.name)
    elif parts := STEM.fullmatch(member.name):
        return parts[1], parts[2].lower()
    else:
        found.leave_out("imageless", member.name)
    return None


def _add_sample(
    found: Members,
    stem: str,
    sample: _Sample,
    read: Callable[[tuple[int, int]], bytes],
) -> None:
    """Add the image of a sample and its label.

    Args:
        sample: its members.
        read: returns a part of the shard.
    """
    if not sample:
        return
    images = [kind for kind in sample if f".{kind.rpartition('.')[2]}" in IMAGE_SUFFIXES]
    if not images:
        found.leave_out("imageless", f"{stem} ({', '.join(sorted(sample))})")
        return
    # An array beside an image, and masks.seg.png, are other things that belong to it.
    image = min(images, key=lambda kind: (kind.endswith("npy"), "." in kind))
    if len(images) > 1:
        found.leave_out("several", f"{stem} ({', '.join(images)})")
    name, place = sample[image]
    text, origin = None, None
    for kind, most in LABELS.items():
        if text is None and kind in sample:
            member, where = sample[kind]
            try:
                text, origin = _label(kind, read(where) if where[1] <= most else None), kind
            except ValueError as error:
                found.leave_out("labels", f"{member} ({error})")
    found.names.append(name)
    found.places.append(place)
    found.texts.append(text)
    found.kinds.append(origin if text is not None else None)


def _label(kind: str, content: bytes | None) -> str | None:
    """Return the class that a label names; None if it is none, but a caption or other facts.

    Raises:
        ValueError: it cannot be read.
    """
    if content is None:
        if kind == "txt":
            return None
        raise ValueError("it is too large")
    if kind == "json":
        value: Any = parse_json(content)
        values = [value[key] for key in JSON_KEYS if key in value] if isinstance(value, dict) else [value]
        value = next((each for each in values if isinstance(each, int | str) and not isinstance(each, bool)), None)
        if value is None:
            return None
        text = str(value)
    else:
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise ValueError("it is no UTF-8 text") from None
    text = text.strip()
    # Without a class, and captions.
    if text in ("", "-1") or len(text) > LONGEST_CLASS or not text.isprintable():
        return None
    return text
