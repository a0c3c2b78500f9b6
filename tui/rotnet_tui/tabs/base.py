"""The base class of the tabs of a run."""

from collections.abc import Iterable

from textual.compose import compose
from textual.containers import Vertical
from textual.message import Message
from textual.widget import Widget

from rotnet_tui.settings import Settings
from rotnet_tui.state.history import History

SCROLLS = {"pageup": "page_up", "pagedown": "page_down"}


class RunTab(Vertical):
    """One tab of a run. It is built when it is first opened, and drawn only while it is visible and has news.

    Attributes:
        built: whether its widgets are there.
    """

    class Chosen(Message):
        """Something else is to be shown, for which files may have to be read."""

    def __init__(self, settings: Settings, *, id: str) -> None:
        super().__init__(id=id)
        self.settings = settings
        self.built = False

    async def build(self) -> None:
        """Make the widgets of the tab, once."""
        if not self.built:
            await self.mount_all(compose(self, self.contents()))
            self.built = True

    def contents(self) -> Iterable[Widget]:
        """The widgets of the tab."""
        raise NotImplementedError

    def fetch(self, history: History) -> None:
        """Read from the disk what `show` needs beside the history, for a thread: no key waits for it."""

    def show(self, history: History, state: str) -> None:
        """Draw the current content of the history. What `fetch` has not read yet is said to be read.

        Args:
            state: of the run, such as "running".
        """
        raise NotImplementedError

    def sideways(self, by: int) -> None:
        """Go to the left (-1) or to the right (1), whatever that means in this tab."""

    def vertical(self, key: str) -> None:
        """Scroll: "up", "down", "pageup", "pagedown", "home" or "end"."""
        for scrolled in list(self.query("VerticalScroll, RichLog"))[:1]:
            getattr(scrolled, f"scroll_{SCROLLS.get(key, key)}")(animate=False)
