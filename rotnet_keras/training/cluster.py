"""Which of the processes that train one model together this is, from TF_CONFIG or from Slurm's variables.

Every process is started by the same command. The chief, the first of them, has the run folder. The others do the same
work on a scratch folder of their own, which nobody looks at: nothing in the training has to know who is who.
"""

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rotnet_keras.config.loading import to_toml
from rotnet_keras.config.schema import ClassifyRecipe, PretrainRecipe, Recipe
from rotnet_keras.config.sections import Devices
from rotnet_keras.errors import RecipeError
from rotnet_keras.runs.folder import RunFolder, create_run

CHIEF_FIRST = ("chief", "worker")


@dataclass(frozen=True)
class Place:
    """One process's place among all.

    Attributes:
        index: its number; 0 is the chief.
        count: how many there are.
    """

    index: int = 0
    count: int = 1

    @property
    def chief(self) -> bool:
        """Whether this process has the run folder."""
        return self.index == 0


def place(recipe: Recipe) -> Place:
    """Where this process stands in the training that a recipe asks for; by itself, unless that spans machines.

    Raises:
        RecipeError: the recipe asks for several machines, or the environment describes them, and they do not fit.
    """
    there = _described()
    if not isinstance(recipe, PretrainRecipe | ClassifyRecipe):
        # A study's runs would each look for the other processes.
        if there.index or (recipe.kind == "study" and there.count > 1):
            raise RecipeError(f"a recipe of the kind {recipe.kind!r} runs on one machine: start it once, not on each")
        return Place()
    if recipe.devices.strategy == "multi_worker" and there.count == 1:
        raise RecipeError(
            "devices.strategy: 'multi_worker' takes several processes, described by TF_CONFIG or started by srun; "
            "there is neither"
        )
    return there if spans_machines(recipe.devices) else Place()


def spans_machines(devices: Devices) -> bool:
    """Whether a recipe's devices are those of all processes that the environment describes."""
    return devices.strategy == "multi_worker" or (devices.strategy == "auto" and _described().count > 1)


def scratch(recipe: Recipe) -> RunFolder:
    """A run folder for a process that is not the chief."""
    return create_run(Path(tempfile.mkdtemp(prefix="rotnet-")), "worker", to_toml(recipe), {})


def _described() -> Place:
    """What the environment says of the processes."""
    if "TF_CONFIG" in os.environ:
        return _of_tf_config(os.environ["TF_CONFIG"])
    # Only what srun starts has these; a shell inside an allocation has not.
    if "SLURM_STEP_NUM_TASKS" in os.environ:
        return Place(int(os.environ["SLURM_PROCID"]), int(os.environ["SLURM_STEP_NUM_TASKS"]))
    return Place()


def _of_tf_config(text: str) -> Place:
    try:
        config = json.loads(text)
        cluster, task = config.get("cluster", {}), config.get("task", {})
        tasks = [(kind, i) for kind in CHIEF_FIRST for i in range(len(cluster.get(kind, [])))]
        return Place(tasks.index((task["type"], task["index"])), len(tasks)) if tasks else Place()
    except (ValueError, KeyError, TypeError, AttributeError):
        raise RecipeError(
            'TF_CONFIG: expected {"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}, '
            f"got {text[:200]}"
        ) from None
