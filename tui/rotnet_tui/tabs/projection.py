"""A sample of validation images in the plane of their features, epoch by epoch."""

from collections.abc import Iterable, Mapping, Sequence

from rich.console import Group
from rich.table import Table
from rich.text import Text
from textual import on
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from rotnet_keras.reports.projections import Projection
from rotnet_keras.runs.events import Event
from rotnet_tui.settings import Settings
from rotnet_tui.state.history import History
from rotnet_tui.state.sample import Sample, all_correct, missing_projection, predicted_angles
from rotnet_tui.state.words import screen_text
from rotnet_tui.tabs.base import RunTab
from rotnet_tui.widgets.curves import COLORS
from rotnet_tui.widgets.picture import Picture, picture
from rotnet_tui.widgets.scatter import Scatter

# A class has a sign and a colour; as many classes as there are signs can be told apart without colours.
SHAPES = "●▲■◆+×○△□◇★☆"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
NO_LABEL = ("·", "$text-muted")
# Where there are no classes, or too many: whether all rotations of an image are predicted.
CORRECT, WRONG = ("●", "$text-success"), ("×", "$text-error")
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, 1), "down": (0, -1)}
# Columns and rows of the image beside the points, in a wide terminal and in a narrow one.
LARGE, SMALL, WIDE = 24, 16, 100


class ProjectionTab(RunTab):
    """The points of the newest epoch. Arrows go through the earlier epochs, and from image to image."""

    def __init__(self, settings: Settings, *, id: str) -> None:
        super().__init__(settings, id=id)
        self.epochs_back = 0
        self.image = 0
        self._history: History | None = None
        self._sample: Sample | None = None

    def contents(self) -> Iterable[Widget]:
        """A headline, the points, and what is under the cursor."""
        yield Static(id="projection-head")
        with Horizontal():
            yield Scatter(id="projection-points")
            with VerticalScroll(id="projection-side"):
                yield picture(self.settings.images, id="projection-image")
                yield Static(id="projection-text")

    def _event(self, events: list[Event]) -> Event:
        """The event of the chosen epoch."""
        return events[-1 - min(self.epochs_back, len(events) - 1)]

    def fetch(self, history: History) -> None:
        """Read the points and the images of the chosen epoch."""
        if self._sample is None:
            self._sample = Sample(history.run)
        if found := history.events["projection"]:
            self._sample.fetch(self._event(found))

    def show(self, history: History, state: str) -> None:
        """Draw the points of the chosen epoch."""
        self._history = history
        found = history.events["projection"]
        if not found:
            self._say(missing_projection(history))
            return
        self.epochs_back = min(self.epochs_back, len(found) - 1)
        event = self._event(found)
        if self._sample is None or not self._sample.fetched(event):
            self._say(f"Epoch {len(found) - self.epochs_back} of {len(found)}   reading its points and images …")
            return
        projection = self._sample.projection(event)
        if projection is None:
            self._say(f"The file {screen_text(event['file'])} of this epoch is missing or damaged.")
            return
        self.query_one(Horizontal).display = True
        self.image = min(self.image, len(projection.points) - 1)
        wide = self.size.width >= WIDE
        epoch, count, tap = f"{len(found) - self.epochs_back} of {len(found)}", len(projection.points), event["tap"]
        if wide:
            words = f"Epoch {epoch}, step {event['step']}   {count} validation images by {screen_text(tap)}, PCA"
        else:
            words = f"Epoch {epoch}   {count} images by {screen_text(tap)}"
        head = self.query_one("#projection-head", Static)
        head.update(Content(words) + Content.from_markup("   [b]← →[/] epochs   [b]↑ ↓[/] images   [b]enter[/] opens"))
        signs = class_signs(projection)
        colors = self._colors
        drawn = [(sign, colors[color]) for sign, color in (signs[name] for name in _names(projection))]
        near = projection.neighbours[self.image].tolist()
        self.query_one(Scatter).show(projection.points, drawn, self.image, near)
        self._show_side(event, projection, signs)

    def _say(self, why: str) -> None:
        """Show a line in place of the points."""
        self.query_one("#projection-head", Static).update(Content(why))
        self.query_one(Horizontal).display = False

    def _show_side(self, event: Event, projection: Projection, signs: Mapping[str, tuple[str, str]]) -> None:
        assert self._sample is not None
        side = LARGE if self.size.width >= WIDE and self.size.height >= LARGE else SMALL
        image = self._sample.image(event, self.image)
        rows = side // 2 if image is None else max(1, round(side / 2 * min(1, image.height / image.width)))
        self.query_one(Picture).show(image, side, rows)
        colors, names = self._colors, _names(projection)
        lines = [Text(f"image {self.image + 1}", style="bold")]
        if projection.labels is not None:
            lines[0].append(f": {_word(projection.labels[self.image])}")
        rotations = []
        pairs = zip(projection.angles, predicted_angles(projection, self.image), strict=True)
        for angle, predicted in pairs:
            word, color = ("✓", "$text-success") if angle == predicted else ("✗", "$text-error")
            rotations.append(Text(f"{word} {angle}°→{predicted}°", style=colors[color]))
        near = projection.neighbours[self.image].tolist()
        pairs = zip(near, projection.similarities[self.image].tolist(), strict=True)
        similar = [Text("most similar", style="bold")]
        for number, similarity in pairs:
            sign, color = signs[names[number]]
            said = _word(projection.labels[number]) if projection.labels is not None else f"image {number + 1}"
            similar.append(Text.assemble((sign, colors[color]), f" {similarity:.2f} {said}"))
        words = Group(*lines, _in_two(rotations), self._legend(projection, signs), *similar)
        self.query_one("#projection-text", Static).update(words)

    def _legend(self, projection: Projection, signs: Mapping[str, tuple[str, str]]) -> Table:
        """What the signs stand for."""
        present = set(_names(projection))
        cells = [
            Text.assemble((sign, self._colors[color]), f" {_word(name)}")
            for name, (sign, color) in signs.items()
            if name in present
        ]
        return _in_two(cells)

    @property
    def _colors(self) -> dict[str, str]:
        variables = self.app.theme_variables
        used = (*COLORS, NO_LABEL[1], CORRECT[1], WRONG[1])
        return {name: _hexadecimal(variables[name.removeprefix("$")], variables["foreground"]) for name in used}

    # What the keys and the mouse do

    def sideways(self, by: int) -> None:
        """Go to an earlier epoch (-1) or a later one (+1)."""
        self.epochs_back = max(0, self.epochs_back - by)
        self.post_message(self.Chosen())

    def vertical(self, key: str) -> None:
        """Go to the image before or after, or to the first or the last; page keys scroll what is beside the points."""
        moved = {"up": self.image - 1, "down": self.image + 1, "home": 0, "end": 1 << 30}
        if key in moved:
            self.image = max(0, moved[key])
            self._redraw()
        else:
            super().vertical(key)

    def toward(self, direction: str) -> None:
        """Go to the nearest image in a direction."""
        self.image = self.query_one(Scatter).toward(*DIRECTIONS[direction])
        self._redraw()

    def opened(self) -> tuple[float, int] | None:
        """The step of what is shown, and the image under the cursor; None where nothing is."""
        events = self._history.events["projection"] if self._history else []
        shown = events and self.query_one(Horizontal).display
        return (self._event(events)["step"], self.image) if events and shown else None

    @on(Scatter.Chosen)
    def _chosen(self, message: Scatter.Chosen) -> None:
        self.image = message.number
        self._redraw()

    def _redraw(self) -> None:
        if self._history is not None:
            self.show(self._history, "")


def class_signs(projection: Projection) -> dict[str, tuple[str, str]]:
    """The sign and the colour of each class, or of images whose rotations are all predicted or not."""
    classes = sorted({name for name in projection.labels or () if name})
    alphabet = SHAPES if len(classes) <= len(SHAPES) else LETTERS
    if not classes or len(classes) > len(alphabet):
        return {"all rotations correct": CORRECT, "some wrong": WRONG}
    signs = {name: (alphabet[n], COLORS[n % len(COLORS)]) for n, name in enumerate(classes)}
    return {**signs, "": NO_LABEL}


def _names(projection: Projection) -> Sequence[str]:
    """For each image the key of its sign."""
    signs = class_signs(projection)
    if "" in signs:
        assert projection.labels is not None
        return projection.labels
    correct, wrong = signs
    return [correct if good else wrong for good in all_correct(projection)]


def _in_two(cells: Sequence[Text]) -> Table:
    """A list in two columns."""
    table = Table.grid(padding=(0, 2, 0, 0))
    half = -(-len(cells) // 2)
    for left, right in zip(cells[:half], [*cells[half:], Text()], strict=False):
        table.add_row(left, right)
    return table


def _word(name: str) -> str:
    return screen_text(name) or "no label"


def _hexadecimal(color: str, other: str) -> str:
    """A colour of the theme for Rich, which does not know Textual's automatic ones."""
    return color[:7] if color.startswith("#") else other[:7]
