"""The errors that a user can cause, each with the exit code of the command line."""

from collections.abc import Iterable


class RotnetError(Exception):
    """The base of all errors that the command line reports as a message, without a traceback."""

    exit_code = 1


class RecipeError(RotnetError):
    """A recipe, an override or a command line is invalid.

    Args:
        message: for the user.
        problems: (location of the key, message) for each problem of a recipe.
    """

    exit_code = 2

    def __init__(self, message: str, problems: Iterable[tuple[tuple[str | int, ...], str]] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems)


class DataError(RotnetError):
    """Images, labels or a model file are missing or cannot be read."""

    exit_code = 3


class RunError(RotnetError):
    """A run folder does not allow the operation: for example, its run is finished, or another process is running it."""


class DivergedError(RotnetError):
    """The training diverged: its loss or a weight became infinite or NaN."""


class RunStopped(RotnetError):
    """A run stopped on request, after its present step and with everything saved.

    `exit_code` is 128 + the signal's number: 130 for SIGINT, 143 for SIGTERM and for a `stop` file.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__("stopped")
        self.exit_code = 128 + signal_number
