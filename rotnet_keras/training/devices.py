"""The devices of a training: one, all GPUs of a machine, several machines, a TPU."""

import os
import re
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from rotnet_keras.config.sections import Devices
from rotnet_keras.engine import keras, tf
from rotnet_keras.errors import DataError, RecipeError
from rotnet_keras.training.cluster import TrainingProcess, spans_machines
from rotnet_keras.training.gpu_claims import check_processes_here, claim_gpus, visible_gpus

SLURM_PORT = 8470


def strategy_for(devices: Devices) -> tf.distribute.Strategy:
    """TensorFlow's distribution strategy for a recipe's devices; the default strategy for a single device.

    Call it before TensorFlow has computed anything: devices are configured then.

    Raises:
        RecipeError: there are fewer GPUs than `devices.replicas`, no TPU can be reached, or two processes of this
            training would use the same GPU.
    """
    if spans_machines(devices):
        return _multi_worker()
    if devices.strategy == "tpu":
        return _tpu()
    gpus = tf.config.list_physical_devices("GPU")
    count = 1 if devices.strategy == "one" else devices.replicas or len(gpus)
    if gpus and count > len(gpus):
        raise RecipeError(f"devices.replicas: expected at most {len(gpus)}, the GPUs of this machine; got {count}")
    if count < 2:
        return tf.distribute.get_strategy()
    if not gpus:
        (processor,) = tf.config.list_physical_devices("CPU")
        tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * count)
    return tf.distribute.MirroredStrategy([f"{'GPU' if gpus else 'CPU'}:{i}" for i in range(count)])


def _multi_worker() -> tf.distribute.Strategy:
    mine = visible_gpus()
    if "TF_CONFIG" in os.environ:
        check_processes_here(len(mine), os.environ["TF_CONFIG"])
        claim_gpus(mine)
        return tf.distribute.MultiWorkerMirroredStrategy(tf.distribute.cluster_resolver.TFConfigClusterResolver())
    # The resolver expects one GPU per task. Where Slurm has not assigned GPUs to tasks, it is done below.
    resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(
        port_base=SLURM_PORT,
        gpus_per_node=int(os.environ["SLURM_STEP_NUM_TASKS"]),
        gpus_per_task=1,
        auto_set_gpu=False,
    )
    resolver.cluster_spec()
    gpus = tf.config.list_physical_devices("GPU")
    tasks_here = int(re.findall(r"\d+", os.environ["SLURM_STEP_TASKS_PER_NODE"])[0])
    if 1 < tasks_here <= len(gpus):
        share = slice(int(os.environ["SLURM_LOCALID"]), None, tasks_here)
        tf.config.set_visible_devices(gpus[share], "GPU")
        mine = mine[share]
    claim_gpus(mine)
    return tf.distribute.MultiWorkerMirroredStrategy(resolver)


def _tpu() -> tf.distribute.Strategy:
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver.connect()
    except (ValueError, tf.errors.OpError) as error:
        raise RecipeError(f"devices.strategy: 'tpu' needs a TPU, and none can be reached: {error}") from None
    return tf.distribute.TPUStrategy(resolver)


def local_replicas(strategy: tf.distribute.Strategy, process: TrainingProcess) -> range:
    """The indices of this process's replicas among those of all processes."""
    each = strategy.num_replicas_in_sync // process.count
    return range(process.rank * each, (process.rank + 1) * each)


def distributed_batches(strategy: tf.distribute.Strategy, parts: tf.data.Dataset) -> tf.distribute.DistributedDataset:
    """A distributed data set that gives each replica its part of every batch.

    It is declared endless, because TensorFlow would otherwise ask all processes before every batch whether there is
    one more. So `fit` needs `steps_per_epoch`.

    Args:
        parts: the parts of this process's replicas, one after the other.
    """
    endless = parts.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))
    return strategy.distribute_datasets_from_function(lambda context: endless)


def broadcast_from_chief(
    strategy: tf.distribute.Strategy, process: TrainingProcess, variables: Sequence[keras.Variable], step: int
) -> int:
    """Set the variables of all processes to the values of the chief's, and return the chief's step."""
    values = [np.asarray(variable) for variable in variables]
    # A broadcast is a sum in which all but the chief add zeros. Integers are exact in float64.
    given: list[Any] = [np.float64(step), *(v.astype(np.float64) if v.dtype.kind in "iu" else v for v in values)]
    summed = _sum_over_processes(strategy, process, [v if process.chief else np.zeros_like(v) for v in given])
    for variable, value, old in zip(variables, summed[1:], values, strict=True):
        variable.assign(value.astype(old.dtype))
    return int(summed[0])


def check_processes_agree(strategy: tf.distribute.Strategy, process: TrainingProcess, values: dict[str, str]) -> None:
    """Make sure that all processes have the same values.

    Args:
        values: this process's values, by their names in the error message.

    Raises:
        DataError: a value differs between the processes.
    """
    mine = np.array([zlib.crc32(value.encode()) for value in values.values()], np.float64)
    (total,) = _sum_over_processes(strategy, process, [mine])
    differing = [name for name, a, b in zip(values, mine * process.count, total, strict=True) if a != b]
    if differing:
        raise DataError(f"the processes of this training must have the same {' and '.join(differing)}, and they differ")


def _sum_over_processes(
    strategy: tf.distribute.Strategy, process: TrainingProcess, values: list[np.ndarray]
) -> list[np.ndarray]:
    """Each array summed over the processes; its shape is the same in all of them."""
    first = local_replicas(strategy, process).start

    def summed(arrays: list[tf.Tensor]) -> Any:
        def of_replica() -> Any:
            context = tf.distribute.get_replica_context()
            mine = context.replica_id_in_sync_group == first
            kept = [tf.where(mine, array, tf.zeros_like(array)) for array in arrays]
            return [context.all_reduce(tf.distribute.ReduceOp.SUM, array) for array in kept]

        return strategy.run(of_replica)

    results = tf.function(summed, autograph=False)([tf.convert_to_tensor(value) for value in values])
    return [strategy.experimental_local_results(result)[0].numpy() for result in results]
