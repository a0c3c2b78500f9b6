"""Validation images as the network sees them, turned, and what it says of them."""

from rich.console import Group
from rich.text import Text
from textual.app import ComposeResult
from textual.containers import ItemGrid, VerticalScroll
from textual.widgets import Static

from rotnet_keras.runs.events import Event
from rotnet_tui.state.history import History
from rotnet_tui.tabs.base import Pane
from rotnet_tui.widgets.picture import half_blocks, open_picture

SHOWN = 24
# Cells of a tile's side, the largest first; a row is two pixels high.
SIDES = (32, 24, 16)


class Samples(Pane):
    """Tiles of the newest epoch; arrows go back to earlier ones."""

    can_focus = False

    def __init__(self) -> None:
        super().__init__(id="samples")
        self._back = 0
        self._drawn: tuple | None = None

    def compose(self) -> ComposeResult:
        """A headline and the tiles."""
        yield Static(id="samples-head")
        with VerticalScroll(), ItemGrid(id="tiles", min_column_width=16):
            for _ in range(SHOWN):
                yield Static(classes="tile")

    def scrub(self, by: int) -> None:
        """Go to an earlier epoch (-1) or a later one (+1)."""
        self._back = max(0, self._back - by)

    def show(self, history: History, state: str) -> None:
        """Draw the tiles of the epoch that is looked at."""
        events = history.kept["samples"]
        head = self.query_one("#samples-head", Static)
        if not events:
            head.update("No samples yet: they come with the validation at the end of every epoch.")
            return
        self._back = min(self._back, len(events) - 1)
        event = events[-1 - self._back]
        picks = [i for i, tile in enumerate(event["tiles"]) if (tile["pick"] == "worst") == self.settings.worst]
        key = (event["file"], self.settings.worst, self.size.width, self.size.height)
        head.update(self._headline(event, len(events), picks))
        if key == self._drawn:
            return
        self._drawn = key
        self._draw(event, picks, history)

    def _headline(self, event: Event, count: int, picks: list[int]) -> str:
        tiles = [event["tiles"][i] for i in picks]
        right = sum(tile["angle"] == tile["predicted"] for tile in tiles)
        which = "the hardest copies" if self.settings.worst else "the same images every time"
        words = [f"Epoch {count - self._back} of {count}, step {event['step']}", which]
        if not self.settings.worst:
            words.append(f"{right} of {len(tiles)} right")
        return "   ".join([*words, "[b]← →[/] epochs", "[b]o[/] hardest / same"])

    def _draw(self, event: Event, picks: list[int], history: History) -> None:
        strip = open_picture(history.run.samples / str(event["file"]))
        width, height = self.size.width - 2, max(1, self.size.height - 2)
        side = next((s for s in SIDES if (width // (s + 1)) * (height // (s // 2 + 2)) >= 12), SIDES[-1])
        grid = self.query_one("#tiles", ItemGrid)
        grid.min_column_width = side
        pixels = event["tile"]
        for n, widget in enumerate(grid.query(Static)):
            widget.display = n < len(picks)
            if n >= len(picks):
                continue
            tile = event["tiles"][picks[n]]
            if strip is None:
                widget.update(Text("picture missing"))
                continue
            left = picks[n] * pixels
            image = strip.crop((left, 0, left + pixels, pixels))
            widget.update(Group(half_blocks(image, side, side // 2), _caption(tile, self.app.theme_variables)))


def _caption(tile: dict, colors: dict[str, str]) -> Text:
    right = tile["angle"] == tile["predicted"]
    words = f"{'✓' if right else '✗'} {tile['angle']}°→{tile['predicted']}° {tile['probability']:.0%}"
    return Text(words, style=colors["text-success" if right else "text-error"] + ("" if right else " bold"))
