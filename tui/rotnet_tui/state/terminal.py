"""How images are drawn in this terminal, by what its environment says: the terminal itself is asked nothing."""

import fcntl
import importlib
import io
import os
import struct
import sys
import termios
from collections.abc import Mapping
from typing import TextIO

HALF_BLOCKS, SIXEL, KITTY = "half-blocks", "sixel", "kitty"
# Programs between the application and the terminal, most of which let no images through.
MULTIPLEXERS = ("TMUX", "STY", "ZELLIJ")
MULTIPLEXED_TERMS = ("tmux", "screen")
# Of TERM: terminals with images by Kitty's protocol and with placeholders in the text, and terminals with Sixel.
KITTY_TERMS = ("xterm-kitty", "xterm-ghostty")
SIXEL_TERMS = ("foot", "mlterm", "contour", "yaft")
# Of TERM_PROGRAM: iTerm2 draws Sixel too, and WezTerm has Kitty's protocol without placeholders.
SIXEL_PROGRAMS = ("iTerm.app", "WezTerm", "mintty")
# Other terminals that may have been started from within one of those above.
OTHERS = ("XTERM_VERSION", "VTE_VERSION", "WT_SESSION", "VSCODE_INJECTION")
KONSOLE_WITH_SIXEL = 220400
# Width and height of a cell in pixels where the terminal does not say them, as of a VT340.
USUAL_CELL = 10, 20


def image_protocol(choice: str, environment: Mapping[str, str], cell: tuple[int, int] | None) -> str:
    """How images are drawn: "kitty", "sixel" or "half-blocks".

    Args:
        choice: the setting `images`; anything but "auto" is what it says.
        environment: variables of the process.
        cell: width and height of a cell in pixels; None where they are not known or there is no terminal.
    """
    if choice != "auto":
        return choice
    term, program = environment.get("TERM", ""), environment.get("TERM_PROGRAM", "")
    between = any(name in environment for name in MULTIPLEXERS) or term.startswith(MULTIPLEXED_TERMS)
    if cell is None or between or "NO_COLOR" in environment:
        return HALF_BLOCKS
    if term in KITTY_TERMS:
        return KITTY
    if term.split("-")[0] in SIXEL_TERMS:
        return SIXEL
    if any(name in environment for name in OTHERS):
        return HALF_BLOCKS
    if "KITTY_WINDOW_ID" in environment or program == "ghostty":
        return KITTY
    konsole = environment.get("KONSOLE_VERSION", "")
    if konsole.isdigit() and int(konsole) >= KONSOLE_WITH_SIXEL:
        return SIXEL
    return SIXEL if program in SIXEL_PROGRAMS or environment.get("LC_TERMINAL") == "iTerm2" else HALF_BLOCKS


def cell_size(terminal: TextIO | None) -> tuple[int, int] | None:
    """Width and height of a cell in pixels, from the system; None where it does not know them."""
    if terminal is None or not terminal.isatty():
        return None
    try:
        answer = fcntl.ioctl(terminal.fileno(), termios.TIOCGWINSZ, bytes(8))
    except OSError:
        return None
    rows, columns, width, height = struct.unpack("HHHH", answer)
    return (width // columns, height // rows) if rows and columns and width >= columns and height >= rows else None


def this_protocol(choice: str) -> str:
    """How images are drawn in the terminal of this process; the library for it is loaded if one is needed."""
    cell = cell_size(sys.__stdout__)
    protocol = image_protocol(choice, os.environ, cell)
    if protocol != HALF_BLOCKS and "textual_image.widget" not in sys.modules:
        _load_textual_image(cell or USUAL_CELL)
    return protocol


def _load_textual_image(cell: tuple[int, int]) -> None:
    """Import `textual_image`, which asks the terminal what it can do when it is imported: it is shown none.

    It would wait for answers, which Textual reads by then. It takes the size of a cell from the environment instead.
    """
    sizes = {"TEXTUAL_CELL_WIDTH": str(cell[0]), "TEXTUAL_CELL_HEIGHT": str(cell[1])}
    before, terminal = {name: os.environ.get(name) for name in sizes}, sys.__stdout__
    os.environ.update(sizes)
    sys.__stdout__ = io.StringIO()  # type: ignore[assignment, misc]
    try:
        importlib.import_module("textual_image.widget")
    finally:
        sys.__stdout__ = terminal  # type: ignore[misc]
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
