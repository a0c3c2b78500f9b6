"""The base class of the tabs of a run."""

from collections.abc import Iterable

from textual.compose import compose
from textual.containers import Vertical
from textual.widget import Widget

from rotnet_tui.settings import Settings
from rotnet_tui.state.history import History


class RunTab(Vertical):
    """One tab of a run. It is built when it is first opened, and drawn only while it is visible and has news.

    Attributes:
        built: whether its widgets are there.
    """

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

    def show(self, history: History, state: str) -> None:
        """Draw the current content of the history.

        Args:
            state: of the run, such as "running".
        """
        raise NotImplementedError
