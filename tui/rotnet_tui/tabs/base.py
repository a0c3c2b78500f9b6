"""What every tab of a run has in common."""

from typing import TYPE_CHECKING

from textual.containers import Vertical

from rotnet_tui.settings import Settings
from rotnet_tui.state.history import History

if TYPE_CHECKING:
    from rotnet_tui.app import RotnetApp


class Pane(Vertical):
    """One tab of a run: drawn only while it is seen, and only when there is something new."""

    app: "RotnetApp"

    def show(self, history: History, state: str) -> None:
        """Draw what the history says by now."""
        raise NotImplementedError

    @property
    def settings(self) -> Settings:
        """What the UI remembers."""
        return self.app.settings
