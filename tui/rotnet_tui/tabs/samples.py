"""Rotated validation images as the model sees them, with its predictions."""

from collections.abc import Iterable

from PIL import Image
from rich.text import Text
from textual.containers import ItemGrid, VerticalScroll
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from rotnet_keras.runs.events import Event
from rotnet_keras.text import percent
from rotnet_tui.settings import Settings
from rotnet_tui.state.history import History
from rotnet_tui.state.reading import Kept
from rotnet_tui.tabs.base import RunTab
from rotnet_tui.widgets.picture import Picture, open_image, picture

MAX_TILES = 24
# Cells of a tile's side, the largest first; a row is two pixels high.
SIDES = (32, 24, 16)
# Tiles that shall fit the screen before larger sides are chosen.
VISIBLE_TILES = 12
# Columns in which there is room for words beside the keys.
WIDE = 100
# Epochs whose images are kept: those that people go to and fro between.
KEPT = 8


class SamplesTab(RunTab):
    """The samples of the newest epoch. Arrows go through the earlier epochs."""

    can_focus = False

    def __init__(self, settings: Settings, *, id: str) -> None:
        super().__init__(settings, id=id)
        self._epochs_back = 0
        self._cursor = 0
        self._history: History | None = None
        self._drawn: tuple | None = None
        # For each visible tile what is drawn: the image, its columns and rows, and its fields in the event.
        self._tiles: list[tuple[Image.Image | None, int, int, dict]] = []
        self._strips: Kept[Image.Image] = Kept(KEPT)

    def contents(self) -> Iterable[Widget]:
        """A headline and the tiles."""
        yield Static(id="samples-head")
        with VerticalScroll(), ItemGrid(id="tiles", min_column_width=16):
            for _ in range(MAX_TILES):
                yield picture(self.settings.images, classes="tile")

    def sideways(self, by: int) -> None:
        """Go to an earlier epoch (-1) or a later one (+1)."""
        self._epochs_back = max(0, self._epochs_back - by)
        self.post_message(self.Chosen())

    def vertical(self, key: str) -> None:
        """Go to the image before or after; other keys scroll."""
        if key not in ("up", "down"):
            super().vertical(key)
        elif self._tiles:
            before, last = self._cursor, len(self._tiles) - 1
            self._cursor = min(last, max(0, before + (1 if key == "down" else -1)))
            for number in {before, self._cursor}:
                self._draw_tile(number)
            self.query(Picture)[self._cursor].scroll_visible(animate=False)

    def opened(self) -> tuple[float, int] | None:
        """The step of what is shown, and the image under the cursor; None where it is not known."""
        events = self._history.events["samples"] if self._history else []
        image = self._tiles[self._cursor][3].get("image") if events and self._tiles else None
        return None if image is None else (self._event(events)["step"], image)

    def _event(self, events: list[Event]) -> Event:
        """The event of the chosen epoch."""
        return events[-1 - min(self._epochs_back, len(events) - 1)]

    def fetch(self, history: History) -> None:
        """Read the tiles of the chosen epoch."""
        if events := history.events["samples"]:
            event = self._event(events)
            self._strips.read(_key(event), lambda: open_image(history.run.samples / event["file"]))

    def show(self, history: History, state: str) -> None:
        """Draw the tiles of the chosen epoch."""
        self._history = history
        events = history.events["samples"]
        head = self.query_one("#samples-head", Static)
        if not events:
            head.update("No samples yet. They come with the validation at the end of every epoch.")
            return
        self._epochs_back = min(self._epochs_back, len(events) - 1)
        event = self._event(events)
        chosen = [i for i, tile in enumerate(event["tiles"]) if (tile["pick"] == "worst") == self.settings.worst]
        read = _key(event) in self._strips
        key = (_key(event), self._strips.get(_key(event)), self.settings.worst, self.size.width, self.size.height)
        headline = Content(self._headline(event, len(events), chosen))
        self.query_one("#tiles").display = read
        if not read:
            head.update(headline + Content("   reading its images …"))
            self._tiles, self._drawn = [], None
            return
        keys = "   [b]← →[/] epochs   [b]o[/] hardest/same   [b]↑ ↓ enter[/] image"
        head.update(headline + Content.from_markup(keys if self.size.width >= WIDE else "  [b]← → o ↑ ↓ enter[/]"))
        if key == self._drawn:
            return
        self._drawn = key
        self._draw(event, chosen)

    def _headline(self, event: Event, epochs: int, chosen: list[int]) -> str:
        tiles = [event["tiles"][i] for i in chosen]
        correct = sum(tile["angle"] == tile["predicted"] for tile in tiles)
        wide = self.size.width >= WIDE
        step = f", step {event['step']}" if wide else ""
        words = [f"Epoch {epochs - self._epochs_back} of {epochs}{step}"]
        if self.settings.worst:
            words.append("hardest images of the epoch")
        else:
            words += ["the same images every epoch", f"{correct} of {len(tiles)} correct"]
        return ("   " if wide else "  ").join(words)

    def _draw(self, event: Event, chosen: list[int]) -> None:
        strip = self._strips.get(_key(event))
        width, height = self.size.width - 2, max(1, self.size.height - 2)
        side = next((s for s in SIDES if (width // (s + 1)) * (height // (s // 2 + 2)) >= VISIBLE_TILES), SIDES[-1])
        grid = self.query_one("#tiles", ItemGrid)
        grid.min_column_width = side
        pixels = event["tile"]
        if strip is not None and strip.width != pixels * len(event["tiles"]):
            strip = None  # The event is of another strip.
        self._tiles = []
        for number in chosen:
            image = None
            if strip is not None:
                image = strip.crop((number * pixels, 0, (number + 1) * pixels, strip.height))
            # A row is two pixels high; a wide image has fewer of them, a tall one is narrower.
            ratio = strip.height / pixels if strip else 1.0
            rows, columns = max(1, round(side * min(1, ratio) / 2)), max(1, round(side / max(1, ratio)))
            self._tiles.append((image, columns, rows, event["tiles"][number]))
        self._tiles = self._tiles[:MAX_TILES]
        self._cursor = min(self._cursor, max(0, len(self._tiles) - 1))
        for number, widget in enumerate(grid.query(Picture)):
            widget.display = number < len(self._tiles)
            if widget.display:
                self._draw_tile(number)

    def _draw_tile(self, number: int) -> None:
        image, columns, rows, tile = self._tiles[number]
        caption = _caption(tile, self.app.theme_variables)
        if number == self._cursor:
            caption.stylize("reverse")
        self.query(Picture)[number].show(image, columns, rows, caption)


def _key(event: Event) -> tuple[str, float]:
    """A run that was resumed writes files of the same names again."""
    return event["file"], event["time"]


def _caption(tile: dict, colors: dict[str, str]) -> Text:
    """True angle, predicted angle, and the predicted probability."""
    correct = tile["angle"] == tile["predicted"]
    sign = "✓" if correct else "✗"
    words = f"{sign} {tile['angle']}°→{tile['predicted']}° {percent(tile['probability'], 0, '%')}"
    return Text(words, style=colors["text-success" if correct else "text-error"] + ("" if correct else " bold"))
