"""Open a run in the terminal UI, go to its System tab, and save what is seen.

    python -m gpu_check.screen RUNS_DIR RUN PICTURE

Prints the lines of the screen. A driver that nobody has tried may say something else than expected.
"""

import asyncio
import sys
from pathlib import Path

from rotnet_tui.app import RotnetApp

from rotnet_keras.runs.folder import find_run

# From the key to the first and to the second measurement; the tab draws once a second.
SECONDS = 4.0
SYSTEM_KEY = "5"


async def main() -> None:
    runs_dir, name, picture = sys.argv[1:]
    app = RotnetApp(Path(runs_dir), find_run(name, Path(runs_dir)))
    async with app.run_test(size=(120, 36)) as pilot:
        await pilot.pause(1.0)
        await pilot.press(SYSTEM_KEY)
        await pilot.pause(SECONDS)
        app.save_screenshot(picture)
        for line in app.screen._compositor.render_strips():
            print("".join(segment.text for segment in line).rstrip())


asyncio.run(main())
