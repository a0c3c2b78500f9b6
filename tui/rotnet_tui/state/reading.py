"""Reading files for a screen: in threads, so that no key waits for a slow disk."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

# How long a reading is waited for before a screen says that it reads.
PATIENCE_SECONDS = 0.05

T = TypeVar("T")


class OneAtATime:
    """Makes a call again and again, never twice at once. What is asked for meanwhile is one more call afterwards."""

    def __init__(self, call: Callable[[], Awaitable[None]]) -> None:
        self._call = call
        self._asked = False
        self._task: asyncio.Task[None] | None = None

    @property
    def busy(self) -> bool:
        """Whether a call is being made."""
        return self._task is not None and not self._task.done()

    async def again(self) -> None:
        """Return when the call has been made with what is wanted now. It goes on if whoever waits for it gives up."""
        self._asked = True
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._make())
        await asyncio.shield(self._task)

    async def _make(self) -> None:
        while self._asked:
            self._asked = False
            await self._call()


class Reading:
    """Reads what is chosen on a screen, in a thread, and has it shown.

    The function that reads keeps what it finds under a name of its own, and the function that shows looks up what is
    chosen then: what is read late, when something else is chosen, is only kept.

    Args:
        read: called in a thread, never twice at once.
        show: called when it is done, and before if that takes a while.
    """

    def __init__(self, read: Callable[[], None], show: Callable[[], None]) -> None:
        self._reading = OneAtATime(lambda: asyncio.to_thread(read))
        self._show = show
        self._asked = 0

    async def again(self) -> None:
        """Read, and show nothing."""
        await self._reading.again()

    async def show(self) -> None:
        """Read and show. Of several calls that wait, the last one shows."""
        self._asked += 1
        number = self._asked
        reading = asyncio.ensure_future(self._reading.again())
        try:
            done, _ = await asyncio.wait([reading], timeout=PATIENCE_SECONDS)
            if not done:
                self._show()
            await reading
        finally:
            reading.cancel()
        if number == self._asked:
            self._show()


class Kept(Generic[T]):
    """What was read, by name: the newest. A name without a value could not be read, and is read again when asked."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._found: dict[Hashable, T | None] = {}

    def __contains__(self, name: Hashable) -> bool:
        return name in self._found

    def get(self, name: Hashable) -> T | None:
        """What was read; None if it was not, or could not be."""
        return self._found.get(name)

    def read(self, name: Hashable, read: Callable[[], T | None]) -> T | None:
        """Return what was read, or read it now. This waits for the disk."""
        found = self._found.get(name)
        if found is None:
            found = read()
            if name not in self._found and len(self._found) >= self._most:
                del self._found[next(iter(self._found))]
            self._found[name] = found
        return found
