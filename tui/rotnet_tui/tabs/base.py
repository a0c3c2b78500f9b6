"""The base class of the tabs of a run."""

from textual.containers import Vertical

from rotnet_tui.settings import Settings
from rotnet_tui.state.history import History


class RunTab(Vertical):
    """One tab of a run. It is drawn only while it is visible, and only when there is something new."""

    def __init__(self, settings: Settings, *, id: str) -> None:
        super().__init__(id=id)
        self.settings = settings

    def show(self, history: History, state: str) -> None:
        """Draw the current content of the history.

        Args:
            state: of the run, such as "running".
        """
        raise NotImplementedError
