"""MLflow."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from lightning_vision.loggers.base import RunLog, Status, flat

STATUS = {"finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}
# Of what MLflow takes at once, and of its values.
BATCH = 100
LONGEST = 500


class MLflowLog(RunLog):
    """A run of MLflow: on a server, or in a database below the run folder.

    A run that is resumed where it ended goes on in the same run of a server; from a database below another run folder
    its epochs are written again into its own.

    Args:
        save_dir: Folder of ``mlflow.db`` and of its pictures, where no server is named.
        tracking_uri: Address of a server, or a database such as ``sqlite:////data/mlflow.db``; None = the variable
            MLFLOW_TRACKING_URI, else ``mlflow.db`` in ``save_dir``.
        experiment: Name of the experiment, which is made where there is none.
        name: Name of the run; None = made up by MLflow.
        tags: What the run is found by, values by name.
        pictures: Whether the pictures of ``plots/`` are logged.
    """

    requires: ClassVar[tuple[str, ...]] = ("mlflow", "mlflow", "sqlalchemy", "alembic")
    kind: ClassVar[str] = "mlflow"

    def __init__(
        self,
        save_dir: str,
        tracking_uri: str | None = None,
        experiment: str = "lightning_vision",
        name: str | None = None,
        tags: dict[str, str] | None = None,
        pictures: bool = True,
    ) -> None:
        super().__init__(save_dir, pictures)
        self.tracking_uri = tracking_uri
        self.experiment_name, self.run_name, self.tags = experiment, name, tags

    def begin(self, record: Mapping[str, str]) -> tuple[Any, dict[str, str]]:
        """Begin a run, or go on in the recorded one if it is at the same address."""
        from mlflow.tracking import MlflowClient

        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)  # steps of making a database
        address = self.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
        artifacts = None
        if not address:
            folder = self.folder.absolute()
            folder.mkdir(parents=True, exist_ok=True)
            address, artifacts = f"sqlite:///{folder / 'mlflow.db'}", f"file://{folder / 'artifacts'}"
        client = MlflowClient(address)
        if record.get("tracking_uri") == address:
            client.update_run(record["run_id"], status="RUNNING")
            return client, dict(record)
        experiment = _experiment(client, self.experiment_name, artifacts)
        run = client.create_run(experiment, run_name=self.run_name, tags=self.tags)
        return client, {"tracking_uri": address, "run_id": run.info.run_id}

    @property
    def run_id(self) -> str:
        """The run's name in MLflow's own calls, beside the client that is ``experiment``."""
        _ = self.experiment
        return self.record["run_id"]

    def write_settings(self, settings: Mapping[str, Any]) -> None:
        """Write the config by dotted key; MLflow changes no parameter, so what is new when a run goes on is a tag."""
        from mlflow.entities import Param, RunTag

        values = {_allowed(key): str(value)[:LONGEST] for key, value in flat(settings).items()}
        there = self.experiment.get_run(self.run_id).data.params
        new = [Param(key, value) for key, value in values.items() if key not in there]
        for i in range(0, len(new), BATCH):
            self.experiment.log_batch(self.run_id, params=new[i : i + BATCH])
        changed = [RunTag(f"resumed.{k}", v) for k, v in values.items() if k in there and there[k] != v]
        for i in range(0, len(changed), BATCH):
            self.experiment.log_batch(self.run_id, tags=changed[i : i + BATCH])

    def write_figures(self, figures: Mapping[str, float], step: int) -> None:
        """Write metrics; signs that MLflow has not in names become underscores."""
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        metrics = [Metric(_allowed(name), value, now, step) for name, value in figures.items()]
        for i in range(0, len(metrics), BATCH):
            self.experiment.log_batch(self.run_id, metrics=metrics[i : i + BATCH])

    def write_picture(self, name: str, file: Path) -> None:
        """Write the file as an artifact in the folder of its name."""
        self.experiment.log_artifact(self.run_id, str(file), str(Path(name).parent))

    def end(self, status: Status) -> None:
        """Say how the run ended."""
        self.experiment.set_terminated(self.run_id, STATUS[status])


def _experiment(client: Any, name: str, artifacts: str | None) -> str:
    """The id of an experiment; another process may make it at the same time."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, artifact_location=artifacts))
        except MlflowException:
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    return str(found.experiment_id)


def _allowed(name: str) -> str:
    return re.sub(r"[^\w/. -]", "_", name)[:250]
