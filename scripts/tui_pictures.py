"""Write the pictures of the terminal UI in the documentation: the app draws them itself, of runs in a folder.

    python scripts/tui_pictures.py RUNS_DIR docs/images

RUNS_DIR needs three runs of the quickstart: `quickstart`, `slower_rate` (optimizer.learning_rate=0.02) and `too_fast`,
whose loss became infinite.
"""

import asyncio
import os
import re
import sys
import tempfile
from pathlib import Path

from rotnet_tui.app import RotnetApp

from rotnet_keras.runs.folder import RunFolder

WAIT = 1.0
# For each picture: the run that is opened, if any, the theme, and the keys.
PICTURES = {
    "rotnet-tui": ("quickstart", "textual-dark", ["left"] * 24),
    "tui-charts": (
        "quickstart",
        "colour-blind-light",
        ["g", "ctrl+u", *"loss,accuracy_*,gradient_norm,run_cpu", "enter"],
    ),
    "tui-projection": ("quickstart", "textual-dark", ["8", "down", "down"]),
    "tui-image": ("quickstart", "colour-blind-dark", ["8", "down", "down", "enter"]),
    "tui-system": ("quickstart", "textual-dark", ["5"]),
    "tui-filter": (None, "textual-dark", ["slash", *"rot>80 -state:failed"]),
    "tui-compare": (
        None,
        "colour-blind-dark",
        ["slash", *"rot>80", "enter", "space", "space", "c", *["left"] * 20],
    ),
    "tui-why": ("too_fast", "textual-dark", ["a"]),
}


async def draw(runs_dir: Path, target: Path) -> None:
    """Draw all pictures."""
    for name, (run, theme, keys) in PICTURES.items():
        app = RotnetApp(runs_dir, RunFolder(runs_dir / run) if run else None)
        app.settings.theme = theme
        async with app.run_test(size=(120, 36)) as pilot:
            await pilot.pause(2 * WAIT)
            for key in keys:
                await pilot.press(key)
                await pilot.pause(WAIT if key in ("c", "enter", "5", "8", "a", "g") else 0.05)
            await pilot.pause(WAIT)
            picture = app.export_screenshot(title="rotnet-tui")
        # A page with it loads nothing from elsewhere.
        (target / f"{name}.svg").write_text(re.sub(r"@font-face \{.*?\}", "", picture, flags=re.DOTALL))


if __name__ == "__main__":
    os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp()
    where, to = map(Path, sys.argv[1:3])
    asyncio.run(draw(where, to.absolute()))
