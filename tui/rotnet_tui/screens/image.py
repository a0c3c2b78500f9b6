"""One image of a run's sample: rotated by each angle, with the predictions, attention maps and nearest neighbours."""

import asyncio
from collections.abc import Awaitable, Callable

import numpy as np
from PIL import Image
from rich.text import Text
from textual import events, work
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Footer, Static

from rotnet_keras.reports.projections import Projection, lit
from rotnet_keras.runs.events import Event
from rotnet_keras.text import percent
from rotnet_tui.screens.base import mistake
from rotnet_tui.settings import Settings
from rotnet_tui.state.history import History
from rotnet_tui.state.reading import Reading
from rotnet_tui.state.sample import Sample, rotated
from rotnet_tui.state.words import screen_text
from rotnet_tui.widgets.picture import Picture, picture

# Columns beside an image for the probabilities of its angles, and the columns of an image, at least and at most.
WORDS, SMALLEST, LARGEST = 13, 12, 24
NEIGHBOUR = 16
# Pixels of a side at which an image is lit by its attention map.
LIT_SIDE = 96


class ImageScreen(Screen[None]):
    """The rotated copies of an image in a row, the same lit by their attention maps, and the most similar images."""

    AUTO_FOCUS = ""
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-wide")]
    BINDINGS = [
        Binding("escape", "dismiss", "Back", id="back"),
        Binding("left", "epoch(1)", "Earlier epoch"),
        Binding("right", "epoch(-1)", "Later epoch"),
        Binding("up", "image(-1)", "Image before"),
        Binding("down", "image(1)", "Next image"),
        Binding("pageup", "scroll(-1)", "Scroll up", show=False),
        Binding("pagedown", "scroll(1)", "Scroll down", show=False),
    ]
    HELP = """\
`←` `→` go through the epochs, `↑` `↓` through the images. Below each copy of the image are the probabilities of the
angles: `✓` is a right prediction, `✗` a wrong one, and `○` the angle that it should be. An attention map lights where
the features of the layer are strong.
"""

    def __init__(
        self, settings: Settings, history: History, poll: Callable[[], Awaitable[bool]], epochs_back: int, image: int
    ) -> None:
        super().__init__()
        self._settings = settings
        self._history, self._poll, self._sample = history, poll, Sample(history.run)
        self._epochs_back, self._image = epochs_back, image
        # The copies and the neighbours for which there are widgets.
        self._angles: list[int] = []
        self._near = 0
        self._reading = Reading(self._fetch, self._draw)
        self._building = asyncio.Lock()

    def compose(self) -> ComposeResult:
        """A headline, the rows of images, and the footer."""
        yield Static(id="image-head")
        with VerticalScroll(id="image-rows", can_focus=False):
            yield Horizontal(id="image-copies")
            yield Horizontal(id="image-attention")
            yield Static(id="image-near-head")
            yield Horizontal(id="image-near")
        yield Footer(compact=True, show_command_palette=False)

    def on_mount(self) -> None:
        """Read the files of the epoch, and follow changes of the theme."""
        self.app.theme_changed_signal.subscribe(self, lambda theme: self._draw())
        self._renew()

    @work(group="build")
    async def _build(self, angles: list[int], near: int) -> None:
        """Make the widgets for the rotated copies and for the neighbours of an image."""
        async with self._building:
            if (angles, near) == (self._angles, self._near):
                return
            for name, count in (("copies", len(angles)), ("attention", len(angles)), ("near", near)):
                row = self.query_one(f"#image-{name}")
                await row.remove_children()
                words = [[Static(classes="words")] if name == "copies" else [] for _ in range(count)]
                await row.mount_all(Horizontal(picture(self._settings.images), *w, classes="copy") for w in words)
            self._angles, self._near = angles, near
        # They have their size only after the next layout.
        self.call_after_refresh(self._draw)

    def on_resize(self, event: events.Resize) -> None:
        """The images have the size that there is room for."""
        self.call_after_refresh(self._draw)

    async def tick(self) -> None:
        """The newest epoch stays the one that is shown."""
        before = len(self._history.events["projection"])
        if await self._poll():
            new = len(self._history.events["projection"]) - before
            self._epochs_back = max(0, self._epochs_back + (new if self._epochs_back else 0))
            self._renew()

    # What the keys do

    def action_epoch(self, by: int) -> None:
        """Go to an earlier epoch or a later one."""
        self._epochs_back = max(0, self._epochs_back + by)
        self._renew()

    def action_image(self, by: int) -> None:
        """Go to the image before or after."""
        self._image = max(0, self._image + by)
        self._draw()

    def action_scroll(self, by: int) -> None:
        """Scroll by a page."""
        rows = self.query_one("#image-rows", VerticalScroll)
        (rows.scroll_page_down if by > 0 else rows.scroll_page_up)(animate=False)

    # What is shown

    def _event(self, events: list[Event]) -> Event:
        """The event of the chosen epoch."""
        return events[-1 - min(self._epochs_back, len(events) - 1)]

    def _fetch(self) -> None:
        """Read the files of the chosen epoch, in a thread."""
        if found := self._history.events["projection"]:
            self._sample.fetch(self._event(found))

    @work(group="chosen")
    async def _renew(self) -> None:
        """Draw the chosen epoch, with what has to be read for it."""
        try:
            await self._reading.show()
        except Exception as error:  # What files may be was checked when they were read.
            self.notify(mistake("This image cannot be read", error), severity="error", markup=False)

    def _draw(self) -> None:
        found = self._history.events["projection"]
        if not found or not self.is_mounted or not self.is_attached:
            return
        self._epochs_back = min(self._epochs_back, len(found) - 1)
        event = self._event(found)
        projection = self._sample.projection(event)
        head = self.query_one("#image-head", Static)
        rows = self.query_one("#image-rows", VerticalScroll)
        fetched = self._sample.fetched(event)
        if fetched and projection and (projection.angles, projection.neighbours.shape[1]) != (self._angles, self._near):
            self._build(projection.angles, projection.neighbours.shape[1])
            return
        rows.display = fetched and projection is not None
        if projection is None or not fetched:
            epoch = f"Image {self._image + 1}   epoch {len(found) - self._epochs_back} of {len(found)}, step"
            damaged = f"The file {screen_text(event['file'])} of this epoch is missing or damaged."
            head.update(Content(damaged if fetched else f"{epoch} {event['step']}   reading its files …"))
            return
        self._image = min(self._image, len(projection.points) - 1)
        words = [f"Image {self._image + 1} of {len(projection.points)}"]
        words += [f"class {_label(projection, self._image)}"] if projection.labels is not None else []
        words.append(f"epoch {len(found) - self._epochs_back} of {len(found)}, step {event['step']}")
        head.update(Content("   ".join(words)))
        self._draw_copies(event, projection)
        self._draw_neighbours(event, projection)

    def _draw_copies(self, event: Event, projection: Projection) -> None:
        image = self._sample.image(event, self._image)
        attention = self._sample.attention(event, self._image)
        width, height = self.size.width - 2, self.size.height
        column = width // max(1, len(self._angles))
        wide = self.has_class("-wide") and column >= SMALLEST + WORDS
        room = column - WORDS if wide else column - 1
        # Two rows of copies, one of neighbours; three lines of words.
        side = min(room, LARGEST, max(SMALLEST, int((height - 5) / 1.5) if wide else height - 9))
        side -= side % 2
        self.query_one("#image-attention").display = attention is not None
        pictures = zip(self._angles, self.query("#image-copies Picture"), self.query(".words"), strict=True)
        for number, (angle, drawn, words) in enumerate(pictures):
            assert isinstance(drawn, Picture) and isinstance(words, Static)
            copy = None if image is None else rotated(image, angle, self._angles)
            rows = side // 2 if copy is None else max(1, round(side / 2 * min(1.0, copy.height / copy.width)))
            drawn.show(copy, side, rows)
            words.update(self._probabilities(projection, number))
        if attention is None:
            return
        for number, drawn in enumerate(self.query("#image-attention Picture")):
            assert isinstance(drawn, Picture)
            copy = None if image is None else rotated(image, self._angles[number], self._angles)
            shown = None if copy is None else _lit(copy, attention[number])
            rows = side // 2 if copy is None else max(1, round(side / 2 * min(1.0, copy.height / copy.width)))
            drawn.show(shown, side, rows)

    def _probabilities(self, projection: Projection, number: int) -> Text:
        """A line for each angle: a sign, the angle, and its probability."""
        row, colors = projection.probabilities[self._image, number], self.app.theme_variables
        predicted = int(np.argmax(row))
        lines = [Text(f"by {self._angles[number]}°", style="bold")]
        for each, (angle, probability) in enumerate(zip(self._angles, row.tolist(), strict=True)):
            sign, style = " ", ""
            if each == predicted:
                good = each == number
                sign, style = ("✓", colors["text-success"]) if good else ("✗", colors["text-error"])
            elif each == number:
                sign = "○"
            lines.append(Text(f"{sign}{angle:>4}° {percent(probability, 0, '%'):>4}", style=style))
        return Text("\n").join(lines)

    def _draw_neighbours(self, event: Event, projection: Projection) -> None:
        tap = screen_text(event["tap"])
        words = f"Above: attention of {tap}. " if event.get("attention") else ""
        words += f"Below: the most similar images by {tap}, cosine similarity."
        self.query_one("#image-near-head", Static).update(Content(words))
        near = projection.neighbours[self._image].tolist()
        similar = projection.similarities[self._image].tolist()
        for drawn, number, similarity in zip(self.query("#image-near Picture"), near, similar, strict=False):
            assert isinstance(drawn, Picture)
            image = self._sample.image(event, number)
            side = min(NEIGHBOUR, (self.size.width - 2) // max(1, len(near)) - 1)
            rows = side // 2 if image is None else max(1, round(side / 2 * min(1.0, image.height / image.width)))
            caption = Text(f"{similarity:.2f} {_label(projection, number)}"[:side], no_wrap=True)
            drawn.show(image, side, rows, caption)


def _label(projection: Projection, number: int) -> str:
    """The class of an image, or its number where there are none."""
    if projection.labels is None:
        return f"image {number + 1}"
    return screen_text(projection.labels[number]) or "no label"


def _lit(image: Image.Image, attention: np.ndarray) -> Image.Image:
    size = LIT_SIDE * image.width // max(image.size), LIT_SIDE * image.height // max(image.size)
    return Image.fromarray(lit(np.asarray(image.resize(size, Image.Resampling.BICUBIC)), attention))
