"""The errors that a user can cause, each with the exit code that the command line ends with."""

from collections.abc import Iterable


class RotnetError(Exception):
    """Base of every error that is reported as a message and never as a traceback."""

    exit_code = 1


class RecipeError(RotnetError):
    """A recipe, an override or a command line that cannot be used.

    `problems` has (location of the key, message) for each thing that is wrong in a recipe.
    """

    exit_code = 2

    def __init__(self, message: str, problems: Iterable[tuple[tuple[str | int, ...], str]] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems)


class DataError(RotnetError):
    """Images, labels or a backbone file that are missing or cannot be read."""

    exit_code = 3


class RunError(RotnetError):
    """A run folder that cannot do what was asked of it."""


class DivergedError(RotnetError):
    """The training loss became infinite or not a number."""


class RunStopped(RotnetError):
    """A run was asked to stop and did so after its step, with everything saved.

    `exit_code` is 128 + the signal's number: 130 for SIGINT, 143 for SIGTERM and for a `stop` file.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__("stopped")
        self.exit_code = 128 + signal_number
