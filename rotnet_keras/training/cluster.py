"""The processes that train one model together, as TF_CONFIG or Slurm's variables describe them.

Every process is started by the same command. The chief, the process of rank 0, writes the run folder. The others do the
same work in a temporary run folder of their own, which nobody reads: no other module has to know the rank.
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
from rotnet_keras.runs.folder import RunFolder
from rotnet_keras.runs.launch import create_run

# The kinds of tasks in TF_CONFIG's cluster that train, in the order of their ranks.
TASK_TYPES = ("chief", "worker")


@dataclass(frozen=True)
class TrainingProcess:
    """One of the processes that train a model together.

    Attributes:
        rank: its number among them, from 0; rank 0 is the chief.
        count: the number of processes.
    """

    rank: int = 0
    count: int = 1

    @property
    def chief(self) -> bool:
        """Whether this process writes the run folder."""
        return self.rank == 0


def training_process(recipe: Recipe) -> TrainingProcess:
    """The rank of this process among those that train a recipe; rank 0 of 1 unless the recipe uses several processes.

    Raises:
        RecipeError: the recipe needs several processes and there is one, or it cannot use several; or TF_CONFIG is
            malformed.
    """
    process = _process_from_environment()
    if not isinstance(recipe, PretrainRecipe | ClassifyRecipe):
        # Each run of a study would wait for the other processes.
        if process.rank or (recipe.kind == "study" and process.count > 1):
            raise RecipeError(
                f"a recipe of the kind {recipe.kind!r} runs in one process: start it once, not on every machine"
            )
        return TrainingProcess()
    if recipe.devices.strategy == "multi_worker" and process.count == 1:
        raise RecipeError(
            "devices.strategy: 'multi_worker' needs several processes, and neither TF_CONFIG nor Slurm describes any; "
            "set TF_CONFIG on each machine, or start the run with srun"
        )
    return process if spans_machines(recipe.devices) else TrainingProcess()


def spans_machines(devices: Devices) -> bool:
    """Whether a recipe trains on the devices of all processes that the environment describes."""
    return devices.strategy == "multi_worker" or (devices.strategy == "auto" and _process_from_environment().count > 1)


def worker_folder(recipe: Recipe) -> RunFolder:
    """A temporary run folder for a process that is not the chief."""
    return create_run(Path(tempfile.mkdtemp(prefix="rotnet-")), "worker", to_toml(recipe), {})


def _process_from_environment() -> TrainingProcess:
    if "TF_CONFIG" in os.environ:
        return _process_from_tf_config(os.environ["TF_CONFIG"])
    # srun alone sets these variables; a shell inside an allocation does not have them.
    if "SLURM_STEP_NUM_TASKS" in os.environ:
        return TrainingProcess(int(os.environ["SLURM_PROCID"]), int(os.environ["SLURM_STEP_NUM_TASKS"]))
    return TrainingProcess()


def _process_from_tf_config(text: str) -> TrainingProcess:
    try:
        config = json.loads(text)
        cluster, task = config.get("cluster", {}), config.get("task", {})
        tasks = [(kind, i) for kind in TASK_TYPES for i in range(len(cluster.get(kind, [])))]
        return TrainingProcess(tasks.index((task["type"], task["index"])), len(tasks)) if tasks else TrainingProcess()
    except (ValueError, KeyError, TypeError, AttributeError):
        raise RecipeError(
            'TF_CONFIG: expected {"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}, '
            f"got {text[:200]}"
        ) from None
