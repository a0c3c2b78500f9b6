"""Lists as people and programs write them: of image files, of labels, of classes."""

import codecs
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from rotnet_keras.errors import DataError
from rotnet_keras.files import MAX_LIST_BYTES, read_file


def list_text(source: Path, expected: str) -> str:
    """Return the text of a list: UTF-8, or UTF-16 with a byte order mark.

    Args:
        source: the list.
        expected: what it should be, for the error.

    Raises:
        DataError: the list cannot be read, or is in another encoding.
    """
    try:
        content = read_file(source, MAX_LIST_BYTES)
    except OSError as error:
        raise DataError(f"{source}: cannot be read: {error.strerror}") from None
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DataError(f"{source}, line {line}: this is no UTF-8 text: {expected}") from None


def list_lines(source: Path, expected: str) -> list[str]:
    """Return the lines of a list that are not empty, without spaces around them.

    Args:
        source: the list.
        expected: what it should be, for the error.

    Raises:
        DataError: as of `list_text`.
    """
    return [line.strip() for line in list_text(source, expected).splitlines() if line.strip()]


def tidy(text: str) -> str:
    """Return a name of a class without spaces around it, in the Unicode form that all lists are compared in."""
    return unicodedata.normalize("NFC", text.strip())


def spellings(name: str) -> Iterator[str]:
    """Yield a listed name of a file as the file may be called: with slashes of either kind, in either Unicode form."""
    for plain in (name, name.replace("\\", "/")):
        yield from dict.fromkeys((plain, *(unicodedata.normalize(form, plain) for form in ("NFC", "NFD"))))
