"""Runs in Weights & Biases: on its server, or in a folder with WANDB_MODE=offline."""

import os
import re
import secrets
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rotnet_keras.runs.tracking.trackers import Point

PROJECT = "rotnet-keras"
# Seconds that a server has for its first answer.
START_SECONDS = 30
# Neither the machine's load, which the events have, nor the source code or the packages around are sent.
SETTINGS = {
    "console": "off",
    "silent": True,
    "disable_git": True,
    "save_code": False,
    "x_disable_stats": True,
    "x_save_requirements": False,
    "init_timeout": START_SECONDS,
}


class WandbTracker:
    """Weights & Biases, in the project `WANDB_PROJECT`, "rotnet-keras" by default."""

    def __init__(self) -> None:
        import wandb

        self._wandb = wandb
        self._run: Any = None
        self.place = ""

    def begin(self, known: str | None, name: str, recipe: Mapping[str, Any]) -> str:
        """Create the run, or go on with it, and return its id."""
        run = self._wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=known or secrets.token_hex(6),
            name=name,
            resume="allow",
            config=dict(recipe),
            settings=self._wandb.Settings(**SETTINGS),
        )
        # Without its own axis, Weights & Biases drops the steps that a resumed run repeats.
        run.define_metric("step")
        run.define_metric("*", step_metric="step")
        self._run = run
        self.place = run.url or f"{run.settings.sync_dir} (offline; send it with: wandb sync)"
        return str(run.id)

    def log(self, points: Sequence[Point]) -> None:
        """Add metrics."""
        for point in points:
            self._run.log({**point.metrics, "step": point.step})

    def attach(self, files: Sequence[tuple[Path, str]]) -> None:
        """Add exported models as an artifact of the type "model", and other files to the files of the run."""
        models = [file for file, folder in files if folder == "export"]
        if models:
            name = re.sub(r"[^\w.-]", "_", f"{self._run.name}-export")
            artifact = self._wandb.Artifact(name, type="model")
            for file in models:
                artifact.add_file(str(file), name=file.name)
            self._run.log_artifact(artifact)
        for file, folder in files:
            if folder != "export":
                # A copy, because Weights & Biases would follow a link to a file that may change or go.
                copy = Path(self._run.dir, folder, file.name)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, copy)
                self._run.save(str(copy), base_path=self._run.dir, policy="now")

    def end(self, outcome: str, exit_code: int) -> None:
        """Close the run, and wait until everything has been sent."""
        if outcome == "stopped":
            self._run.mark_preempting()
        self._run.finish(exit_code=exit_code)
