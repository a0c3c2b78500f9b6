"""Writing files atomically, so that no reader ever finds a partial one."""

import os
import secrets
import shutil
from contextlib import suppress
from pathlib import Path


def write_atomically(path: Path, content: bytes) -> None:
    """Write or replace a file: a reader finds the old content or the new one, also after a crash. Its mode stays.

    Each call writes to a temporary file of its own in the same folder, so that several writers do not mix.

    Args:
        path: the file; its folder must exist.
        content: all of its bytes.

    Raises:
        OSError: it cannot be written; the temporary file is removed.
    """
    temporary = path.with_name(f".{secrets.token_hex(4)}.{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            shutil.copymode(path, temporary)
        temporary.replace(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        raise
