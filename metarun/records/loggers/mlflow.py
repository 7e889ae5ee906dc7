"""The logger `mlflow`: a tracking server, a database, or a folder of files.

MLflow cannot delete values. So a resumed run leaves out the values that MLflow has already, of the steps that the run repeats; they are
equal. A metric's name may have letters, digits and `_ - . : /` alone; other characters become `_`. A folder of files cannot hold both
`val/accuracy` and `val/accuracy/omniglot`, so each slash after the first becomes a dot.
"""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from metarun.records.loggers.identity import noted
from metarun.records.loggers.logger import RunStart
from metarun.records.loggers.packages import package
from metarun.records.loggers.params import flatten
from metarun.values import Text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LONGEST = 500
"""Most characters of a parameter's value that every store of MLflow takes."""
PATIENT = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
"""A training waits for the server at each line of the log, so it must not wait for minutes. metarun offers the values again later."""


class MLflow:
    """Logs to MLflow. The keys are explained in `configs/logger/mlflow.yaml`."""

    draws_figures = True

    def __init__(self, experiment: Text = "metarun", tracking_uri: Text | None = None, tags: Mapping[str, str] | None = None) -> None:
        self.experiment, self.tracking_uri, self.tags = experiment, tracking_uri, dict(tags or {})

    def start(self, run: RunStart) -> None:
        """Open the run, or the run of the stopped training again."""
        for name, value in PATIENT.items():
            os.environ.setdefault(name, value)
        package("mlflow", "mlflow")
        from mlflow.tracking import MlflowClient

        uri = self.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or ""
        if uri.startswith("file:") or (uri and ":" not in uri):  # newer versions ask for this consent to a folder of files
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        self._client = MlflowClient(tracking_uri=self.tracking_uri)
        known = noted(run, "mlflow", lambda: self._created(run))
        self._id, self._done = known.id, False
        self._last = self._last_steps() if known.earlier else {}
        if known.earlier:
            self._client.update_run(self._id, status="RUNNING")
        for step, values in run.history():
            self.log(step, values)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Log the finite values that MLflow does not have."""
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        named = {_name(name): value for name, value in values.items() if math.isfinite(value)}
        metrics = [Metric(name, value, now, step) for name, value in named.items() if step > self._last.get(name, -1)]
        for first in range(0, len(metrics), 500):  # MLflow takes at most 1000 in one call
            self._client.log_batch(self._id, metrics=metrics[first : first + 500])

    def figure(self, step: int, tag: str, figure: Figure) -> None:
        """Store a picture as an artifact of the run."""
        self._client.log_figure(self._id, figure, f"{tag}/step_{step}.png")

    def result(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log the final metrics, and end the run as finished."""
        self.log(step, metrics)
        self._client.set_terminated(self._id, status="FINISHED")
        self._done = True

    def sync(self) -> None:
        """Nothing: `log` returns when MLflow has the values."""

    def close(self) -> None:
        """End the run; without a result, it counts as killed until it is resumed."""
        if not self._done:
            self._client.set_terminated(self._id, status="KILLED")

    def _created(self, run: RunStart) -> str:
        """Make a run with the config as its parameters, and return its id."""
        from mlflow.entities import Param

        found = self._client.get_experiment_by_name(self.experiment)
        experiment = found.experiment_id if found else self._client.create_experiment(self.experiment)
        made: str = self._client.create_run(experiment, run_name=run.name, tags={**self.tags, "metarun.folder": run.name}).info.run_id
        params = [Param(name, str(value)[:LONGEST]) for name, value in flatten(run.config)]
        for first in range(0, len(params), 100):  # most in one call
            self._client.log_batch(made, params=params[first : first + 100])
        return made

    def _last_steps(self) -> dict[str, int]:
        """Return the last step that MLflow has of each metric."""
        names = self._client.get_run(self._id).data.metrics
        history: dict[str, Any] = {name: self._client.get_metric_history(self._id, name) for name in names}
        return {name: max(each.step for each in entries) for name, entries in history.items()}


def _name(name: str) -> str:
    """Return a metric's name as MLflow allows it."""
    group, slash, rest = name.partition("/")
    return re.sub(r"[^\w\-.:/]", "_", f"{group}{slash}{rest.replace('/', '.')}", flags=re.ASCII)
