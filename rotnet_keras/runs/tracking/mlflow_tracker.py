"""Runs in MLflow: on a server, in its local database, or in a folder, as MLflow's own environment variables say."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rotnet_keras.runs.tracking.trackers import Point, without_password
from rotnet_keras.runs.tracking.values import parameters

# What MLflow takes at once, and how long the value of a parameter may be.
MOST_METRICS, MOST_PARAMETERS, MOST_CHARACTERS = 1000, 100, 6000
STATUS = {"finished": "FINISHED", "failed": "FAILED", "stopped": "KILLED", "killed": "KILLED"}
# A server that does not answer is given up sooner than by MLflow's defaults. Nothing is sent to MLflow's makers.
DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
EXPERIMENT = "rotnet-keras"


class MlflowTracker:
    """MLflow at `MLFLOW_TRACKING_URI`, in the experiment `MLFLOW_EXPERIMENT_NAME`, "rotnet-keras" by default."""

    def __init__(self) -> None:
        for name, value in DEFAULTS.items():
            os.environ.setdefault(name, value)
        import mlflow
        from mlflow.tracking import MlflowClient

        uri = mlflow.get_tracking_uri()
        self._client = MlflowClient(uri)
        self._run = ""
        self.place = without_password(uri)

    def begin(self, known: str | None, name: str, recipe: Mapping[str, Any]) -> str:
        """Create the run in its experiment, or set it running again, and return its id."""
        if known is None:
            created = self._client.create_run(
                self._experiment(), run_name=name, tags={"mlflow.source.name": EXPERIMENT}
            )
            self._run = created.info.run_id
        else:
            self._client.update_run(known, status="RUNNING")
            self._run = known
        from mlflow.entities import Param

        values = [Param(key, _shortened(value)) for key, value in parameters(recipe).items()]
        for some in _parts(values, MOST_PARAMETERS):
            self._client.log_batch(self._run, params=some)
        return self._run

    def log(self, points: Sequence[Point]) -> None:
        """Add metrics."""
        from mlflow.entities import Metric

        values = [
            Metric(name, value, round(1000 * point.time), point.step)
            for point in points
            for name, value in point.metrics.items()
        ]
        for some in _parts(values, MOST_METRICS):
            self._client.log_batch(self._run, metrics=some)

    def attach(self, files: Sequence[tuple[Path, str]]) -> None:
        """Add files as artifacts; those of the same names are replaced."""
        for file, folder in files:
            self._client.log_artifact(self._run, str(file), folder or None)

    def end(self, outcome: str, exit_code: int) -> None:
        """Close the run."""
        self._client.set_terminated(self._run, STATUS.get(outcome, "FAILED"), round(1000 * time.time()))

    def _experiment(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        found = self._client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(self._client.create_experiment(name))
            except Exception:  # Another run may have created it in between.
                found = self._client.get_experiment_by_name(name)
                if found is None:
                    raise
        return str(found.experiment_id)


def _shortened(value: str) -> str:
    """Return a value that MLflow takes; recipe.toml, which is attached, has it whole."""
    return value if len(value) <= MOST_CHARACTERS else f"{value[: MOST_CHARACTERS - 3]}..."


def _parts(values: list[Any], most: int) -> Iterator[list[Any]]:
    for start in range(0, len(values), most):
        yield values[start : start + most]
