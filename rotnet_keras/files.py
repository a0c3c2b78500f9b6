"""Writing files atomically, so that no reader ever finds a partial one."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# What begins and ends the names of temporary files, so that those of a killed process can be found.
TEMPORARY = ".*.tmp*"


def write_atomically(path: Path, content: bytes) -> None:
    """Write or replace a file: a reader finds the old content or the new one, also after a crash. Its mode stays.

    Several writers, of one process or of several, do not mix: the file is whole, from the one that was last.

    Args:
        path: the file; its folder must exist.
        content: all of its bytes.

    Raises:
        OSError: it cannot be written; nothing is left.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give an empty temporary file that replaces `path` after the block, unless the block fails.

    The file was created by this call and has a name that no other has, in the same folder and with the same suffix.

    Args:
        path: the file; its folder must exist.

    Raises:
        OSError: the file cannot be created, or not be put in place; nothing is left.
    """
    temporary = _new_file_beside(path)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        if path.exists():
            shutil.copymode(path, temporary)
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def _new_file_beside(path: Path) -> Path:
    """Create an empty file that did not exist before, so that neither a file nor a link of others is written to."""
    while True:
        temporary = path.with_name(f".{secrets.token_hex(4)}.tmp.{path.name}")
        with suppress(FileExistsError):
            temporary.touch(exist_ok=False)
            return temporary
