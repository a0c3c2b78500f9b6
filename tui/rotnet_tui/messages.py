"""What a screen asks the application to do.

Screens post these messages and the application handles them, so that neither imports the other. A message whose
sender needs the result carries a future.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from textual.message import Message

from rotnet_keras.runs.folder import RunFolder


class OpenRun(Message):
    """Open the screen of one run; that of a study shows its runs and tables.

    Attributes:
        tabs: whether a study is opened as any other run, with its log and its recipe.
    """

    def __init__(self, run: RunFolder, tabs: bool = False) -> None:
        super().__init__()
        self.run = run
        self.tabs = tabs


class CompareRuns(Message):
    """Open the screen that compares runs."""

    def __init__(self, runs: Sequence[RunFolder]) -> None:
        super().__init__()
        self.runs = runs


class NewRun(Message):
    """Open the form of a new run, for a recipe or for the default one."""

    def __init__(self, recipe: str | None = None) -> None:
        super().__init__()
        self.recipe = recipe


class Refresh(Message):
    """Read and draw what is new now, without waiting for the next tick of the clock."""


class Perform(Message):
    """Run a command of `rotnet-keras` and notify the user of its outcome.

    Attributes:
        succeeded: set to whether the command succeeded, once it has ended.
    """

    def __init__(self, *arguments: str) -> None:
        super().__init__()
        self.arguments = arguments
        self.succeeded: asyncio.Future[bool] = asyncio.get_running_loop().create_future()


class EditFile(Message):
    """Open a file in the user's editor.

    Attributes:
        closed: set once the editor has been closed.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
