"""Images in shards as a source of training images: their classes, their splits, and what identifies them."""

import hashlib
import json
import os
import time
from array import array
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from tarfile import BLOCKSIZE
from typing import TYPE_CHECKING

import numpy as np

from rotnet_keras.config.sections import Data
from rotnet_keras.data.fingerprints import SETTLED_NS, combined, file_digests, file_facts
from rotnet_keras.data.image_files import UnreadableImage, check_bytes
from rotnet_keras.data.layout import LeftOut
from rotnet_keras.data.listing.sources import ListedSource, quiet
from rotnet_keras.data.listing.text_lists import tidy
from rotnet_keras.data.shards.members import LABELS, SENTENCES, read_members
from rotnet_keras.data.shards.names import find_shards
from rotnet_keras.data.stores import read_index
from rotnet_keras.errors import DataError
from rotnet_keras.files import cache_folder, make_private_folder, open_file, parse_json, write_atomically
from rotnet_keras.text import first_few, printable

if TYPE_CHECKING:
    from rotnet_keras.data.stores import Progress

# Shards that are read at once.
READ_AT_ONCE = 16
# Where a tar header has the size of its member.
SIZE_FIELD = slice(124, 136)
UNLABELLED = -1


@dataclass(frozen=True)
class ShardFiles:
    """The images of a split in its shards, in order; each is read where it lies.

    Attributes:
        root: the folder of the shards.
        shards: their paths below it.
        names: of the images, in UTF-8, each followed by a zero byte.
        ends: (N,) int64, where each name ends.
        shard_numbers: (N,) int32, which shard each image is in.
        places: (N, 2) int64, offset and length of each image in bytes.
    """

    root: Path
    shards: list[str]
    names: bytes
    ends: np.ndarray
    shard_numbers: np.ndarray
    places: np.ndarray

    def __len__(self) -> int:
        return len(self.places)

    def name(self, position: int) -> str:
        """Return the name of an image in its shard."""
        start = int(self.ends[position - 1]) + 1 if position else 0
        return os.fsdecode(self.names[start : int(self.ends[position])])

    def shown(self, position: int, root: Path) -> str:
        """Return the shard and the name of an image."""
        return f"{os.path.relpath(self._shard(position), root)}: {self.name(position)}"

    def place(self, position: int) -> str:
        """Return the shard, with its folder, and the name of an image."""
        return f"{self._shard(position)}: {self.name(position)}"

    def content(self, position: int) -> BytesIO:
        """Return the bytes of an image.

        Raises:
            UnreadableImage: it is too large, or not where it was.
        """
        start, length = (int(number) for number in self.places[position])
        check_bytes(length)
        try:
            with open_file(self._shard(position)) as file:
                whole = os.pread(file.fileno(), BLOCKSIZE + length, start - BLOCKSIZE)
        except OSError as error:
            raise UnreadableImage(error.strerror or str(error)) from None
        if len(whole) != BLOCKSIZE + length:
            raise UnreadableImage(f"the shard ends {BLOCKSIZE + length - len(whole):,} bytes before the image does")
        if _size_in(whole) != length:
            raise UnreadableImage("no member of this size begins here any more: the shard has changed")
        return BytesIO(whole[BLOCKSIZE:])

    def size(self, position: int) -> int:
        """Return the size of an image in bytes."""
        return int(self.places[position, 1])

    def suffixes(self) -> Counter[str]:
        """Return the number of images with each suffix, in lower case and with its dot."""
        return Counter(os.path.splitext(self.name(position))[1].lower() for position in range(len(self)))  # noqa: PTH122

    def chosen(self, which: np.ndarray) -> "ShardFiles":
        """Return the images for which an array (N,) bool is true."""
        if which.all():
            return self
        names = b"".join(os.fsencode(self.name(int(position))) + b"\0" for position in np.flatnonzero(which))
        return replace(
            self, names=names, ends=_ends(names), shard_numbers=self.shard_numbers[which], places=self.places[which]
        )

    def _shard(self, position: int) -> Path:
        return self.root / self.shards[self.shard_numbers[position]]


def _size_in(header: bytes) -> int | None:
    """Return the size of a member that a tar header says; None where no header is."""
    try:
        return int(header[SIZE_FIELD].rstrip(b" \0"), 8)
    except ValueError:
        return None


@dataclass(frozen=True)
class ShardSource(ListedSource):
    """Images in tar files, in WebDataset's convention.

    Attributes:
        pattern: a recipe's `data.name`.
        splits: the images of each split.
    """

    splits: dict[str, ShardFiles]
    pattern: str = ""

    @property
    def path(self) -> Path:
        """The pattern as a recipe has it."""
        return Path(self.pattern)

    def fingerprint(self, progress: "Progress" = quiet) -> str:
        """Return a fingerprint that changes when a shard is added, removed, renamed or changed."""
        return combined("shards-1", self._entries(progress))

    def _entries(self, progress: "Progress") -> Iterator[tuple[str, bytes]]:
        every = [shard for files in self.splits.values() for shard in files.shards]
        digests = iter(file_digests(self.root, every, progress))
        for split, files in self.splits.items():
            for shard in files.shards:
                yield f"{split}\0{shard}", next(digests).tobytes()


def find_images(data: Data) -> ShardSource:
    """Find the images in the shards that a recipe names, their labels and their splits.

    Each shard's headers are read once, several shards at a time; what they say is kept in the cache folder.

    Raises:
        DataError: there are no shards, one is damaged, or there are no images for training.
    """
    root, shards, without = find_shards(data.name, data.splits)
    left_out = LeftOut()
    if without:
        left_out.images.append(f"{len(without):,} shards are of no split: {first_few(without)}")
    paths = [root / shard for each in shards.values() for shard in each]
    with ThreadPoolExecutor(READ_AT_ONCE) as pool:
        indices = dict(zip(paths, pool.map(_index_of, paths), strict=True))
    files, texts = {}, {}
    found: dict[str, tuple[int, str]] = {}
    for split, names in shards.items():
        parts = [indices[root / name] for name in names]
        files[split], texts[split] = _joined(root, names, parts), _Texts.of(parts)
        for part in parts:
            for what, (count, example) in part.left_out.items():
                before, first = found.get(what, (0, example))
                found[what] = before + count, first
    left_out.hidden += found.pop("hidden", (0, ""))[0]
    left_out.images += [
        SENTENCES[what].format(n=n, example=printable(example)) for what, (n, example) in sorted(found.items())
    ]
    if not len(files["train"]):
        raise DataError(f"data.name: no images in the {len(shards['train']):,} shards for training of {root}")
    used, labels, class_names, classes = _classes(files, texts, left_out)
    counts = [f"{len(each):,} {split} ({_counted(shards[split])})" for split, each in used.items()]
    understood = [
        ("layout", f"WebDataset shards, {_counted(list(map(str, paths)))}"),
        ("splits", ", ".join(counts)),
        ("classes", classes),
    ]
    return ShardSource(root, used, labels, class_names, understood, left_out, data.name)


def _counted(shards: list[str]) -> str:
    return f"{len(shards):,} tar file{'s' if len(shards) > 1 else ''}"


@dataclass(frozen=True)
class _ShardIndex:
    """The images of a shard, as the cache folder keeps them; see `Members`.

    Attributes:
        codes: (N,) int32, the position in `texts` of what each label says; -1 without one.
        kinds: (N,) int8, the position in `LABELS` of what each label is from.
    """

    names: bytes
    places: np.ndarray
    codes: np.ndarray
    kinds: np.ndarray
    texts: list[str]
    left_out: dict[str, tuple[int, str]]


def _index_of(path: Path) -> _ShardIndex:
    """Return the index of a shard, which is read again if the shard has another size or other times than before.

    Raises:
        DataError: the shard is damaged.
    """
    kept = cache_folder() / "shards" / f"{hashlib.blake2b(os.fsencode(path.resolve()), digest_size=16).hexdigest()}.npz"
    facts = np.array(file_facts(str(path)), np.int64)
    with suppress(OSError, DataError, KeyError, ValueError):
        arrays = read_index(kept) if kept.is_file() else {"facts": np.zeros(0)}
        if np.array_equal(arrays["facts"], facts):
            about = parse_json(arrays["about"].tobytes())
            left_out = {what: (int(count), str(example)) for what, (count, example) in about["left_out"].items()}
            columns = arrays["names"].tobytes(), arrays["places"], arrays["codes"], arrays["kinds"]
            return _ShardIndex(*columns, about["texts"], left_out)
    began = time.time_ns()
    members = read_members(path)
    texts = {text: code for code, text in enumerate(dict.fromkeys(text for text in members.texts if text is not None))}
    kinds = list(LABELS)
    found = _ShardIndex(
        b"".join(os.fsencode(name) + b"\0" for name in members.names),
        np.array(members.places, np.int64).reshape(-1, 2),
        np.array([UNLABELLED if text is None else texts[text] for text in members.texts], np.int32),
        np.array([UNLABELLED if kind is None else kinds.index(kind) for kind in members.kinds], np.int8),
        list(texts),
        members.left_out,
    )
    if facts[2] < began - SETTLED_NS:
        _keep(kept, facts, found)
    return found


def _keep(kept: Path, facts: np.ndarray, found: _ShardIndex) -> None:
    buffer = BytesIO()
    about = json.dumps({"texts": found.texts, "left_out": found.left_out}).encode()
    arrays = {"places": found.places, "codes": found.codes, "kinds": found.kinds, "facts": facts}
    as_bytes = {"names": np.frombuffer(found.names, np.uint8), "about": np.frombuffer(about, np.uint8)}
    np.savez(buffer, allow_pickle=False, **arrays, **as_bytes)
    # Without it the next start reads the shard again.
    with suppress(OSError):
        make_private_folder(kept.parent)
        write_atomically(kept, buffer.getvalue())


def _joined(root: Path, shards: list[str], parts: list[_ShardIndex]) -> ShardFiles:
    names = b"".join(part.names for part in parts)
    numbers = np.repeat(np.arange(len(parts), dtype=np.int32), [len(part.places) for part in parts])
    places = np.concatenate([part.places for part in parts])
    return ShardFiles(root, shards, names, _ends(names), numbers, places)


def _ends(names: bytes) -> np.ndarray:
    """Return where the zero bytes in joined names are."""
    return np.flatnonzero(np.frombuffer(names, np.uint8) == 0)


@dataclass(frozen=True)
class _Texts:
    """What the labels of a split say.

    Attributes:
        words: the different texts, each in the Unicode form in which it comes first.
        codes: (N,) int32, the position in them of each image's; -1 without.
        kinds: (N,) int8, the position in `LABELS` of what each label is from; -1 without.
    """

    words: list[str]
    codes: np.ndarray
    kinds: np.ndarray

    @classmethod
    def of(cls, parts: list[_ShardIndex]) -> "_Texts":
        """Return those of several shards."""
        numbers: dict[str, int] = {}
        words: list[str] = []
        codes = []
        for part in parts:
            known = []
            for text in part.texts:
                known.append(numbers.setdefault(tidy(text), len(words)))
                if known[-1] == len(words):
                    words.append(text)
            codes.append(np.array([*known, UNLABELLED], np.int32)[part.codes])
        return cls(words, np.concatenate(codes), np.concatenate([part.kinds for part in parts]))


def _classes(
    files: dict[str, ShardFiles], texts: dict[str, _Texts], left_out: LeftOut
) -> tuple[dict[str, ShardFiles], dict[str, "array[int]"], list[str], str]:
    """Return the images that are used, their labels, the class names, and a sentence about these."""
    files = {split: found for split, found in files.items() if len(found)}
    train = texts["train"]
    kinds = np.bincount(train.kinds[train.kinds >= 0], minlength=len(LABELS))
    if not kinds.any():
        return files, {}, [], f"none: no label in members called {', '.join(f'.{kind}' for kind in LABELS)}"
    kind = int(np.argmax(kinds > 0))
    suffix, codes = list(LABELS)[kind], np.where(train.kinds == kind, train.codes, UNLABELLED)
    numbers, counts = np.unique(codes[codes >= 0], return_counts=True)
    if suffix == "txt" and 2 * len(numbers) > counts.sum():
        return files, {}, [], f"none: the .txt members are captions, {len(numbers):,} different ones"
    if len(numbers) < 2:
        return files, {}, [], f"none: all labels are {train.words[int(numbers[0])]!r}"
    words = [train.words[int(number)] for number in numbers]
    class_names = sorted(words, key=int if all(w.isascii() and w.isdigit() for w in words) else str)
    index = {tidy(name): number for number, name in enumerate(class_names)}
    used: dict[str, ShardFiles] = {}
    labels: dict[str, array[int]] = {}
    unlabelled = 0
    for split, found in files.items():
        own = texts[split]
        of_word = np.array([index.get(tidy(word), -2) for word in own.words] + [UNLABELLED], np.int32)
        label = of_word[np.where(own.kinds == kind, own.codes, UNLABELLED)]
        known = label != -2
        if strange := int((~known).sum()):
            left_out.images.append(f"{strange:,} {split} images are left out: no training images of their classes")
        unlabelled += int((label == UNLABELLED).sum())
        if known.any():
            used[split], labels[split] = found.chosen(known), array("i", label[known].tobytes())
    without = f"; {unlabelled:,} images have none" if unlabelled else ""
    return used, labels, class_names, f"{len(class_names):,}, by .{suffix}: {first_few(class_names)}{without}"
