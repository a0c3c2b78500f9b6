"""Images: in the terminal's full resolution where it has one, else in half blocks, two pixels per cell.

Half blocks work in every terminal, in tmux and in a browser.
"""

from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Group, RenderableType
from rich.text import Text
from rich_pixels import Pixels
from textual.app import ComposeResult
from textual.widgets import Static

from rotnet_keras.reports.samples import read_strip
from rotnet_tui.state.terminal import KITTY, SIXEL, this_protocol

MISSING = Text("image missing")


class Picture(Static):
    """An image with words below it, as wide as the wider of the two."""

    def show(self, image: Image.Image | None, columns: int, rows: int, caption: Text | None = None) -> None:
        """Draw an image of so many columns and rows; where there is none, the words say so."""
        self.styles.width = max(columns, caption.cell_len if caption else 0)
        drawn = MISSING if image is None else self._drawn(image, columns, rows)
        self.update(Group(drawn, caption) if caption else drawn)

    def _drawn(self, image: Image.Image, columns: int, rows: int) -> RenderableType:
        return half_blocks(image, columns, rows)


class KittyPicture(Picture):
    """The image by Kitty's protocol: the terminal gets it beside the text, which holds places for it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._sent: Any = None

    def _drawn(self, image: Image.Image, columns: int, rows: int) -> RenderableType:
        from textual_image.renderable import TGPImage

        self.on_unmount()
        self._sent = TGPImage(image, width=columns, height=rows)
        return self._sent  # type: ignore[no-any-return]

    def on_unmount(self) -> None:
        """Free the terminal's memory."""
        if self._sent is not None:
            self._sent.cleanup()
            self._sent = None


class SixelPicture(Picture):
    """The image as Sixel, which a widget of its own draws."""

    DEFAULT_CSS = "SixelPicture { layout: vertical; height: auto; } SixelPicture > Static { height: auto; }"

    def __init__(self, **options: Any) -> None:
        from textual_image.widget import SixelImage

        super().__init__(**options)
        self._image, self._words = SixelImage(), Static()

    def compose(self) -> ComposeResult:
        """The image and the words."""
        yield self._image
        yield self._words

    def show(self, image: Image.Image | None, columns: int, rows: int, caption: Text | None = None) -> None:
        """Draw an image of so many columns and rows; where there is none, the words say so."""
        self.styles.width = max(columns, caption.cell_len if caption else 0)
        self._image.display = image is not None
        if image is not None and image is not self._image.image:
            self._image.image = image
        self._image.styles.width, self._image.styles.height = columns, rows
        words = Text("\n").join([*([MISSING] if image is None else []), *([caption] if caption else [])])
        self._words.display = bool(words)
        self._words.update(words)


PICTURES: dict[str, type[Picture]] = {KITTY: KittyPicture, SIXEL: SixelPicture}


def picture(choice: str, **options: Any) -> Picture:
    """A widget for an image.

    Args:
        choice: the setting `images`.
        **options: of Textual's widgets, such as `id`.
    """
    return PICTURES.get(this_protocol(choice), Picture)(**options)


def open_image(path: Path) -> Image.Image | None:
    """An image that a run has drawn, in RGB; None if it is missing, damaged, or not a file of the run's own."""
    try:
        return read_strip(path).convert("RGB")
    except (OSError, ValueError, SyntaxError):
        return None


def half_blocks(image: Image.Image, width: int, height: int) -> Pixels:
    """The image in `width` cells and `height` rows."""
    size = (width, 2 * height)
    smaller = size[0] < image.width or size[1] < image.height
    resized = image.resize(size, Image.Resampling.BOX if smaller else Image.Resampling.NEAREST)
    return Pixels.from_image(resized)
