"""Opening files: bounded reads of regular files, and writes that no reader finds half done.

A folder that others have made, such as a run folder, is opened with `inside`: no link in it is followed. What is not a
regular file, such as a pipe, is never opened: reading it could wait for ever.
"""

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import time
import tomllib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

# What begins and ends the names of temporary files, so that those of a killed process can be found.
TEMPORARY = ".*.tmp*"
# A larger TOML file, or one with longer dotted keys, is not one of ours: the parser would take minutes to reject it.
MAX_TOML_BYTES = 2**20
LONG_KEY = re.compile(r"""(?<![\w"'-])(?:(?:[\w-]+|"[^"\n]*"|'[^'\n]*')[ \t]*\.[ \t]*){100}""")
# A list of ten million images and their labels is smaller.
MAX_LIST_BYTES = 1 << 30
# No JSON or TOML of ours has so many tables and lists in each other; much deeper ones exhaust Python's stack.
MAX_DEPTH = 40
# Files that are read at once where there are many, and those that a thread asks about in turn.
READ_AT_ONCE, ASKED_IN_TURN = 16, 64
# Only the owner may look into these folders.
PRIVATE = 0o700


def open_file(path: Path, inside: Path | None = None) -> BinaryIO:
    """Open a regular file for reading.

    Args:
        path: the file.
        inside: a folder that holds it, at any depth; below this folder no link is followed.

    Raises:
        OSError: it does not exist, is a folder, a pipe or a device, or would be reached by a link.
    """
    with _within(path, inside) as (name, folder):
        return os.fdopen(_open_regular(path, name, folder, os.O_RDONLY, inside is not None), "rb")


def read_file(path: Path, most: int, inside: Path | None = None) -> bytes:
    """Return the content of a regular file of at most so many bytes.

    Args:
        path: the file.
        most: in bytes.
        inside: as of `open_file`.

    Raises:
        OSError: as of `open_file`, or the file is larger.
    """
    with open_file(path, inside) as file:
        # A buffer of the size that is asked for is made before anything is read.
        content = file.read(min(most, os.fstat(file.fileno()).st_size) + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"larger than the {most:,} bytes that such a file may have", str(path))
    return content


def read_json(path: Path, most: int, inside: Path | None = None) -> Any:
    """Return the value that a JSON file of at most so many bytes holds.

    Args:
        path: the file.
        most: in bytes.
        inside: as of `open_file`.

    Raises:
        OSError: as of `read_file`.
        ValueError: it is not JSON, or nested too deeply.
    """
    return parse_json(read_file(path, most, inside))


def read_toml(path: Path, inside: Path | None = None) -> dict[str, Any]:
    """Return the values of a TOML file.

    Args:
        path: the file.
        inside: as of `open_file`.

    Raises:
        OSError: as of `read_file`.
        ValueError: it is not TOML in UTF-8, or nested too deeply.
    """
    # Editors of Windows begin a file with a byte order mark.
    return parse_toml(read_file(path, MAX_TOML_BYTES, inside).decode("utf-8-sig"))


def parse_json(text: bytes) -> Any:
    """Parse JSON from others.

    Raises:
        ValueError: it is not JSON, or nested too deeply.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("too deeply nested") from None
    # Nearly all texts have fewer brackets than levels are allowed.
    if text.count(b"[") + text.count(b"{") > MAX_DEPTH:
        _refuse_depth(value)
    return value


def parse_toml(text: str) -> dict[str, Any]:
    """Parse TOML from others.

    Raises:
        ValueError: it is not TOML, or nested too deeply.
    """
    try:
        if LONG_KEY.search(text):
            raise RecursionError
        values = tomllib.loads(text)
    except RecursionError:
        raise ValueError("too deeply nested") from None
    _refuse_depth(values)
    return values


def _refuse_depth(value: Any) -> None:
    """Raise `ValueError` unless a value of JSON or TOML has at most `MAX_DEPTH` levels of lists and tables."""
    level = [value]
    for _ in range(MAX_DEPTH):
        inner = [each.values() if isinstance(each, dict) else each for each in level if isinstance(each, (dict, list))]
        level = [item for items in inner for item in items]
        if not level:
            return
    raise ValueError("too deeply nested")


def written_at(files: Sequence[Path]) -> list[float | OSError]:
    """Return when each file, or a link of its name, was written, in seconds since the epoch, or why that is not known.

    Several are asked for at once: a far disk takes long to answer.
    """

    def ask(some: Sequence[Path]) -> list[float | OSError]:
        found: list[float | OSError] = []
        for file in some:
            try:
                found.append(file.lstat().st_mtime)
            except OSError as error:
                found.append(error)
        return found

    parts = [files[start : start + ASKED_IN_TURN] for start in range(0, len(files), ASKED_IN_TURN)]
    if len(parts) < 2:
        return ask(files)
    with ThreadPoolExecutor(READ_AT_ONCE) as pool:
        return [each for found in pool.map(ask, parts) for each in found]


def has_file(path: Path) -> bool:
    """Return whether there is a regular file at a path, and not a link to one."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except (OSError, ValueError):
        return False


def open_to_append(path: Path, inside: Path | None = None) -> BinaryIO:
    """Open a regular file to append to it, and create it where it does not exist.

    Args:
        path: the file; its folder must exist.
        inside: as of `open_file`.

    Raises:
        OSError: as of `open_file`, or it cannot be written; or, given `inside`, it has another name elsewhere, under
            which it would change too.
    """
    with _within(path, inside) as (name, folder):
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        descriptor = _open_regular(path, name, folder, flags, inside is not None)
        if inside is not None and os.fstat(descriptor).st_nlink > 1:
            os.close(descriptor)
            raise OSError(
                errno.EMLINK,
                "the file has another name elsewhere (a hard link), under which it would change too; copy it, and "
                "rename the copy to this name",
                str(path),
            )
        return os.fdopen(descriptor, "ab")


def make_folder(path: Path, inside: Path | None = None) -> None:
    """Create a folder unless it exists.

    Args:
        path: the folder.
        inside: as of `open_file`.

    Raises:
        OSError: it cannot be created, or something else has its name, such as a link.
    """
    with _within(path, inside) as (name, folder):
        with suppress(FileExistsError):
            os.mkdir(name, dir_fd=folder)
        if not stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=inside is None).st_mode):
            raise OSError(errno.ENOTDIR, "not a folder of its own: a link or a file", str(path))


def make_private_folder(path: Path) -> None:
    """Create a folder, and those above it, into which only this user may look; one that exists stays as it is."""
    if not path.is_dir():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=PRIVATE, exist_ok=True)


def digest(path: Path) -> str:
    """A digest of the content of a file: 32 hexadecimal digits of blake2b.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def write_atomically(path: Path, content: bytes, inside: Path | None = None, private: bool = False) -> None:
    """Write or replace a file: a reader finds the old content or the new one, also after a crash. Its mode stays.

    Several writers, of one process or of several, do not mix: the file is whole, from the one that was last.

    Args:
        path: the file; its folder must exist. A link of this name is replaced, not followed.
        content: all of its bytes.
        inside: as of `open_file`.
        private: whether only this user may read a new file.

    Raises:
        OSError: it cannot be written; nothing is left.
    """
    with replacing(path, inside) as temporary:
        if private:
            os.fchmod(temporary.fileno(), 0o600)
        temporary.write(content)


@contextmanager
def replacing(path: Path, inside: Path | None = None) -> Iterator[BinaryIO]:
    """Give an empty file, open for writing, that replaces `path` after the block, unless the block fails.

    The file was created by this call and has a name that no other has, in the same folder.

    Args:
        path: the file; its folder must exist. A link of this name is replaced, not followed.
        inside: as of `open_file`.

    Raises:
        OSError: the file cannot be created, or not be put in place; nothing is left.
    """
    with _within(path, inside) as (name, folder):
        temporary, file = _create_beside(name, folder)
        try:
            with file:
                yield file
                file.flush()
                os.fsync(file.fileno())
                with suppress(FileNotFoundError):
                    found = os.stat(name, dir_fd=folder, follow_symlinks=False)
                    if stat.S_ISREG(found.st_mode):
                        os.fchmod(file.fileno(), stat.S_IMODE(found.st_mode))
            os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary, dir_fd=folder)
            raise


def create_file(path: Path, inside: Path | None = None) -> BinaryIO:
    """Open a new file for reading and writing.

    Args:
        path: the file; its folder must exist.
        inside: as of `open_file`.

    Raises:
        OSError: something has its name, such as a link, or it cannot be created.
    """
    with _within(path, inside) as (name, folder):
        return _create(name, folder)


def move(source: Path, path: Path, inside: Path | None = None) -> None:
    """Move a file or folder of ours to another name on the same disk.

    Args:
        source: what has its final content.
        path: its new name; a file or link of this name is replaced by a file, not followed.
        inside: as of `open_file`.

    Raises:
        OSError: it cannot be moved.
    """
    with _within(path, inside) as (name, folder):
        os.rename(source, name, dst_dir_fd=folder)


def remove_unfinished(folder: Path, seconds: float = 0.0, besides: tuple[str, ...] = ()) -> None:
    """Remove what killed processes had begun to write into a folder, at any depth. No link is followed.

    Args:
        folder: the folder.
        seconds: what was written to within this time stays, where other processes may be writing.
        besides: names of files that others may be writing, which stay.
    """
    for path in sorted(folder.rglob(TEMPORARY)):
        with suppress(OSError):
            found = path.lstat()
            if time.time() - found.st_mtime >= seconds and not path.name.endswith(besides):
                (shutil.rmtree if stat.S_ISDIR(found.st_mode) else os.unlink)(path)


@contextmanager
def _within(path: Path, inside: Path | None) -> Iterator[tuple[str, int | None]]:
    """Give how the system is to be asked for a file: its name, and the open folder that this is relative to."""
    if inside is None:
        yield str(path), None
        return
    *folders, name = _parts(path, inside)
    descriptor = os.open(inside, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for part in folders:
            try:
                deeper = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
            except NotADirectoryError:
                reason = f"{part!r} is not a folder of its own, but a link or a file"
                raise NotADirectoryError(errno.ENOTDIR, reason, str(path)) from None
            os.close(descriptor)
            descriptor = deeper
        yield name, descriptor
    finally:
        os.close(descriptor)


def _parts(path: Path, inside: Path) -> tuple[str, ...]:
    """Return the names that lead from a folder to a file in it, some of which others may have chosen."""
    text, start = str(path), f"{inside}/"
    try:
        parts = tuple(text[len(start) :].split("/")) if text.startswith(start) else path.relative_to(inside).parts
        os.fsencode(text)
    except ValueError:
        parts = ()
    if not parts or {"..", ""} & set(parts) or "\0" in text:
        raise OSError(errno.EINVAL, f"not the name of a file in {inside}", str(path))
    return parts


def _open_regular(path: Path, name: str, folder: int | None, flags: int, unfollowed: bool) -> int:
    """Open a regular file; anything else is refused before it is opened, since opening a device can do something."""
    with suppress(FileNotFoundError):
        _require_regular(path, os.stat(name, dir_fd=folder, follow_symlinks=not unfollowed))
    flags |= os.O_NONBLOCK | os.O_CLOEXEC | (os.O_NOFOLLOW if unfollowed else 0)
    descriptor = os.open(name, flags, 0o666, dir_fd=folder)
    try:
        _require_regular(path, os.fstat(descriptor))
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _require_regular(path: Path, found: os.stat_result) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(found.st_mode):
        what = "a link" if stat.S_ISLNK(found.st_mode) else "a pipe" if stat.S_ISFIFO(found.st_mode) else "a device"
        raise OSError(errno.EINVAL, f"{what}, where a regular file is expected", str(path))


def _create_beside(name: str, folder: int | None) -> tuple[str, BinaryIO]:
    """Create an empty file that did not exist before, so that neither a file nor a link of others is written to."""
    while True:
        temporary = str(Path(name).with_name(f".{secrets.token_hex(4)}.tmp.{Path(name).name}"))
        with suppress(FileExistsError):
            return temporary, _create(temporary, folder)


def _create(name: str, folder: int | None) -> BinaryIO:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    return os.fdopen(os.open(name, flags, 0o666, dir_fd=folder), "w+b")


def cache_folder() -> Path:
    """Return the folder of decoded images and indices: the environment's ROTNET_CACHE_DIR, or ~/.cache/rotnet-keras."""
    return Path(os.environ.get("ROTNET_CACHE_DIR", "~/.cache/rotnet-keras")).expanduser().absolute()
