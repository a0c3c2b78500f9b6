"""Which tar files a recipe's `data.name` means, and which split each belongs to."""

import glob
import itertools
import os
import re
from fnmatch import fnmatchcase
from pathlib import Path

from rotnet_keras.config.sections import Splits
from rotnet_keras.data.layout import SPLIT_FOLDERS, split_of
from rotnet_keras.errors import DataError
from rotnet_keras.text import first_few

# What names of shards end with: tar files, and those that are compressed as a whole, which cannot be read at random.
TAR, COMPRESSED = ".tar", (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".tar.lz4")
# Numbers or words in braces, as WebDataset names many shards: train-{000000..001281}.tar.
BRACES = re.compile(r"\{(?:(\d+)\.\.(\d+)|([^{},]*(?:,[^{},]*)+))\}")
MOST_SHARDS = 1_000_000


def names_shards(name: str) -> bool:
    """Return whether a recipe's `data.name` means tar files."""
    return name.lower().endswith((TAR, *COMPRESSED))


def find_shards(name: str, splits: Splits) -> tuple[Path, dict[str, list[str]], list[str]]:
    """Find the tar files that a recipe names.

    Args:
        name: the path of a tar file, or a pattern with `*`, `?`, `**` or `{000..123}`.
        splits: patterns for the shards of each split. Without them a word in the name of a file, or of its folder, says
            which split it is of, and files without such a word are for training.

    Returns:
        The folder of the shards, their paths below it by split, in sorted order, and those that are of no split.

    Raises:
        DataError: there are none, some are not there or are compressed, or one would be in two splits.
    """
    if "://" in name or name.startswith("pipe:"):
        raise DataError(f"data.name: {name!r} is no path: download the tar files, and set data.name=FOLDER/*.tar")
    root, pattern = _literal_part(Path(name).expanduser().absolute())
    found: set[str] = set()
    for each in _expanded(pattern):
        matches = glob.glob(each, root_dir=root, recursive=True)  # noqa: PTH207
        if not matches:
            raise DataError(f"data.name: there is no file {root / each}")
        found.update(matches)
    if packed := sorted(path for path in found if path.lower().endswith(COMPRESSED)):
        raise DataError(
            f"data.name: {root / packed[0]} is compressed as a whole, so that no image of it can be read by itself: "
            "unpack such files to plain tar files (gunzip, unxz or zstd -d)"
        )
    shards = sorted(path for path in found if path.lower().endswith(TAR))
    chosen = {split: _matching(shards, split, wanted) for split, wanted in splits.model_dump(exclude_none=True).items()}
    for one, other in itertools.combinations(chosen, 2):
        if shared := sorted(set(chosen[one]) & set(chosen[other])):
            raise DataError(
                f"data.splits: {one} and {other} both have {first_few(shared)}: name each shard in one split only"
            )
    taken = {path for paths in chosen.values() for path in paths}
    words = {path: _split_in(path) for path in shards if path not in taken}
    named = "train" in chosen or "train" in words.values()
    for split in SPLIT_FOLDERS:
        usual = [
            path for path, word in words.items() if word == split or (word is None and split == "train" and not named)
        ]
        if split not in chosen and usual:
            chosen[split] = usual
    if "train" not in chosen:
        raise DataError(
            f"data.name: none of the {len(shards):,} shards is for training ({first_few(shards)}); name those that are "
            "with data.splits.train, as in data.splits.train=shard-*.tar"
        )
    used = {path for paths in chosen.values() for path in paths}
    return (
        root,
        {split: chosen[split] for split in SPLIT_FOLDERS if split in chosen},
        [p for p in shards if p not in used],
    )


def _literal_part(path: Path) -> tuple[Path, str]:
    """Return the folder that a pattern begins with, whose own name may have brackets, and the rest of the pattern."""
    root, parts = Path(path.anchor), path.parts[1:]
    while len(parts) > 1 and (root / parts[0]).is_dir():
        root, parts = root / parts[0], parts[1:]
    return root, str(Path(*parts))


def _expanded(pattern: str) -> list[str]:
    """Return the patterns that one with braces stands for.

    Raises:
        DataError: they are too many.
    """
    found = BRACES.search(pattern)
    if found is None:
        return [pattern]
    first, last, words = found.groups()
    if words is None and int(last) - int(first) >= MOST_SHARDS:
        raise DataError(f"data.name: {found[0]} stands for more than {MOST_SHARDS:,} shards")
    each = words.split(",") if words else [str(n).zfill(len(first)) for n in range(int(first), int(last) + 1)]
    rest = _expanded(pattern[found.end() :])
    if len(each) * len(rest) > MOST_SHARDS:
        raise DataError(f"data.name: {pattern} stands for more than {MOST_SHARDS:,} shards")
    return [pattern[: found.start()] + one + other for one in each for other in rest]


def _matching(shards: list[str], split: str, wanted: str) -> list[str]:
    """Return the shards whose path, or whose own name, is of a pattern.

    Raises:
        DataError: there are none.
    """
    patterns = _expanded(wanted)
    found = [
        path
        for path in shards
        if any(fnmatchcase(path, p) or fnmatchcase(os.path.basename(path), p) for p in patterns)  # noqa: PTH119
    ]
    if not found:
        raise DataError(f"data.splits.{split}: no shard is called {wanted!r} (there are: {first_few(shards)})")
    return found


def _split_in(path: str) -> str | None:
    """Return the split that a word in the name of a shard says, or else one in that of the nearest folder."""
    for part in reversed(Path(path).parts):
        words = {split_of(word) for word in re.split(r"[^A-Za-z]+", part) if word} - {None}
        if len(words) == 1:
            return words.pop()
    return None
