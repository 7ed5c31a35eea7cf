"""The adapter to MLflow. Nothing but this module imports it; MLflow holds copies, the ledger is the record."""

from __future__ import annotations

import logging
import math
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

from redraft.errors import ServiceError, StorageError
from redraft.files import atomic_path

# Not for a user to choose: nothing phones home, nothing is unpickled.
ENV = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
}
# A server that is slow or far away may need more; what the environment says counts.
DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}
# Who ran it and from where would name people and machines; these say what redraft wants said.
CONSTANT_TAGS = {"mlflow.user": "redraft", "mlflow.source.name": "redraft", "mlflow.source.type": "JOB"}
BATCH = 900  # MLflow takes 1000 metrics at a time
CONNECT_SECONDS = 5.0
STEP_TAG = "redraft.step_digest"
MODEL_TAG = "redraft.model_id"  # searches return versions without their model id


@dataclass(frozen=True)
class DatasetRef:
    """One role's dataset as MLflow sees it. `digest` is DVC's `<md5>.dir`: exactly the 36 characters MLflow allows."""

    role: str
    digest: str
    sha256: str
    commit: str
    round: int
    exams: int

    @property
    def name(self) -> str:
        return f"redraft-{self.role}"


@dataclass(frozen=True)
class Logged:
    """What MLflow calls a logged model."""

    run_id: str
    model_id: str
    version: str


class Registry:
    """MLflow at one tracking URI.

    Parameters
    ----------
    uri : str
        `sqlite:///…` or the URL of a server.
    state : Path
        The project's `.redraft`; artifacts of a sqlite store lie in it.
    """

    def __init__(self, uri: str, state: Path):
        self.uri = uri
        self.state = state

    @cached_property
    def client(self) -> Any:
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """Around every use: MLflow set up our way, and whatever it raises turned into ours."""
        _environment()
        self._probe()
        ensure_store(self.uri, self.state)
        import mlflow
        from mlflow.exceptions import MlflowException
        from requests import RequestException
        from sqlalchemy.exc import SQLAlchemyError

        # MLflow resolves `models:/` sources through its process-wide URI, whatever the client was given.
        mlflow.set_tracking_uri(self.uri)
        try:
            yield
        except (MlflowException, RequestException, SQLAlchemyError) as error:
            # The first line: the rest of a database error repeats statements with their values.
            why = _without_credentials(str(error).strip().splitlines()[0])[:300]
            raise self._down(why) from error
        except OSError as error:
            raise StorageError(
                f"The model package could not be copied for MLflow: {error.strerror}.",
                "Mend the cause (disk space, permissions) and run the command again.",
            ) from error

    def _probe(self) -> None:
        """Knock at a server's port first: MLflow's own retries wait much longer for a machine that is off."""
        url = urlsplit(self.uri)
        if url.scheme not in ("http", "https"):
            return
        port = url.port or (443 if url.scheme == "https" else 80)
        try:
            socket.create_connection((url.hostname or "", port), timeout=CONNECT_SECONDS).close()
        except OSError as error:
            raise self._down(str(error)) from error

    def _down(self, why: str) -> ServiceError:
        if self.uri.startswith("sqlite:"):
            do = "Look at .redraft/mlflow.db, then run the command again."
        else:
            do = "Start it (`redraft up`) or mend services.mlflow in project.yaml, then run the command again."
        return ServiceError(f"MLflow at {_shown(self.uri)} does not do it: {why}", do, code="service.mlflow")

    def check(self) -> None:
        """Raise ServiceError within seconds when MLflow does not answer: before an hour of training, not after."""
        with self._reached():
            self.client.search_experiments(max_results=1)

    def log_training(
        self,
        *,
        project: str,
        step_digest: str,
        run_name: str,
        params: Mapping[str, str],
        tags: Mapping[str, str],
        curves: Sequence[tuple[str, int, float]],
        datasets: Sequence[DatasetRef],
        package: Path,
        model_tags: Mapping[str, str],
    ) -> Logged:
        """Log one training: run, datasets, curves, package as a LoggedModel (PENDING → READY), registered version.

        The step's digest is the idempotency key, together with `model_tags`: what was logged before is found again (a
        run that died after its version was registered is finished), and what died earlier is marked FAILED.

        Parameters
        ----------
        curves : sequence of (metric name, step, value)
        package : Path
            The model package directory; copied as it is, no flavour, no pickle.
        """
        with self._reached():
            from mlflow.entities import Metric, Param
            from mlflow.exceptions import MlflowException

            experiment = self._experiment(project)
            found = self._logged_before(experiment, step_digest, model_tags)
            if found is not None:
                return found
            run = self.client.create_run(
                experiment, run_name=run_name, tags={**CONSTANT_TAGS, **tags, STEP_TAG: step_digest}
            )
            run_id = run.info.run_id
            now = int(time.time() * 1000)
            metrics = [Metric(_name(name), value, now, step) for name, step, value in curves if math.isfinite(value)]
            self.client.log_batch(run_id, params=[Param(key, value) for key, value in params.items()])
            for start in range(0, len(metrics), BATCH):
                self.client.log_batch(run_id, metrics=metrics[start : start + BATCH])
            self.client.log_inputs(run_id, [_input(ref) for ref in datasets])
            model = self.client.create_logged_model(
                experiment, name=project, source_run_id=run_id, tags=dict(model_tags), model_type="redraft-package"
            )
            self.client.log_model_artifacts(model.model_id, str(package))
            self.client.finalize_logged_model(model.model_id, "READY")
            try:
                self.client.create_registered_model(project)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            version = self.client.create_model_version(
                project,
                source=f"models:/{model.model_id}",
                run_id=run_id,
                tags={**model_tags, STEP_TAG: step_digest, MODEL_TAG: model.model_id},
                model_id=model.model_id,
            )
            self.client.set_terminated(run_id, "FINISHED")
            return Logged(run_id, model.model_id, str(version.version))

    def log_metrics(self, logged: Logged, dataset: DatasetRef, values: Mapping[str, float]) -> None:
        """Log metrics of a model on a dataset, so that MLflow's own lineage shows both.

        What is there already is not logged again. MLflow turns an infinite value into 1.8e308, so only finite ones are
        copied there; the ledger keeps the others.
        """
        with self._reached():
            from mlflow.entities import Metric

            there = {
                (metric.key, metric.value)
                for metric in self.client.get_logged_model(logged.model_id).metrics or []
                if (metric.dataset_name, metric.dataset_digest) == (dataset.name, dataset.digest)
            }
            now = int(time.time() * 1000)
            metrics = [
                Metric(
                    _name(name), value, now, 0, model_id=logged.model_id, dataset_name=dataset.name,
                    dataset_digest=dataset.digest, run_id=logged.run_id,
                )
                for name, value in values.items()
                if math.isfinite(value) and (_name(name), value) not in there
            ]  # fmt: skip
            if not metrics:
                return
            self.client.log_inputs(logged.run_id, [_input(dataset)])
            for start in range(0, len(metrics), BATCH):
                self.client.log_batch(logged.run_id, metrics=metrics[start : start + BATCH])

    def download_package(self, name: str, version: str, target: Path) -> Path:
        """Copy a registered version's package to the empty folder `target` and return it.

        Nothing is loaded: the caller verifies the package first.
        """
        with self._reached():
            from mlflow.artifacts import download_artifacts

            model_id = self.client.get_model_version(name, version).tags[MODEL_TAG]
            target.parent.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(dir=target.parent, prefix=".partial-") as folder:
                found = download_artifacts(artifact_uri=f"models:/{model_id}", dst_path=folder, tracking_uri=self.uri)
                shutil.move(found, target)
            return target

    def set_alias(self, name: str, alias: str, version: str) -> None:
        """Point an alias at a version; setting it again changes nothing."""
        with self._reached():
            self.client.set_registered_model_alias(name, alias, version)

    def alias(self, name: str, alias: str) -> str | None:
        """The version behind an alias, None where it was never set."""
        with self._reached():
            from mlflow.exceptions import MlflowException

            try:
                return str(self.client.get_model_version_by_alias(name, alias).version)
            except MlflowException as error:
                if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                    return None
                raise

    def reconcile(self, name: str, alias: str, version: str | None) -> bool:
        """Make an alias say what the ledger says; returns whether it had to be moved.

        Parameters
        ----------
        version : str or None
            The ledger's version; None where the ledger knows none, and the alias is taken away.
        """
        if self.alias(name, alias) == version:
            return False
        if version is not None:
            self.set_alias(name, alias, version)
        else:
            with self._reached():
                self.client.delete_registered_model_alias(name, alias)
        return True

    def _experiment(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        experiment = self.client.get_experiment_by_name(name)
        if experiment is not None:
            return str(experiment.experiment_id)
        location = None
        if self.uri.startswith("sqlite:"):
            location = (self.state / "mlartifacts").as_uri()
        try:
            return str(self.client.create_experiment(name, artifact_location=location))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another project of this name came first
                raise
            return str(self.client.get_experiment_by_name(name).experiment_id)

    def _logged_before(self, experiment: str, step_digest: str, model_tags: Mapping[str, str]) -> Logged | None:
        """The training's earlier entry; one writer at a time, so a run that is RUNNING belongs to a dead process."""
        found = None
        for run in self.client.search_runs([experiment], f"tags.`{STEP_TAG}` = '{step_digest}'"):
            run_id = run.info.run_id
            # A version is registered last, so it stands for all that came before it.
            versions = self.client.search_model_versions(f"run_id = '{run_id}'")
            same = [v for v in versions if all(v.tags.get(key) == value for key, value in model_tags.items())]
            if run.info.status == "RUNNING":
                self.client.set_terminated(run_id, "FINISHED" if versions else "FAILED")
                if not versions:
                    self._fail_models(experiment, run_id)
            if same and found is None:
                found = Logged(run_id, same[0].tags[MODEL_TAG], str(same[0].version))
        return found

    def _fail_models(self, experiment: str, run_id: str) -> None:
        for model in self.client.search_logged_models([experiment], f"source_run_id = '{run_id}'"):
            if str(model.status) not in ("READY", "FAILED"):
                self.client.finalize_logged_model(model.model_id, "FAILED")


def _input(ref: DatasetRef) -> Any:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    tags = {
        "mlflow.data.context": ref.role,
        "redraft.sha256": ref.sha256,
        "redraft.commit": ref.commit,
        "redraft.round": str(ref.round),
        "redraft.exams": str(ref.exams),
    }
    dataset = Dataset(name=ref.name, digest=ref.digest, source_type="dvc", source=f'{{"commit": "{ref.commit}"}}')
    return DatasetInput(dataset, [InputTag(key, value) for key, value in tags.items()])


def _name(metric: str) -> str:
    """A metric's name in the characters that MLflow takes; names of test sets are the user's."""
    return re.sub(r"[^\w.\-/: ]", "_", metric)


def _shown(uri: str) -> str:
    return "the project's own store" if uri.startswith("sqlite:") else _without_credentials(uri)


def _without_credentials(text: str) -> str:
    return re.sub(r"(\w+://)[^/\s@]+@", r"\1***@", text)


def _environment() -> None:
    os.environ.update(ENV)
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)


def ensure_store(uri: str, state: Path) -> None:
    """Make the database of a `sqlite:` store where there is none, whole or not at all.

    MLflow would make its tables one by one and never get past a database that a killed process left half made.
    """
    path = Path(uri.removeprefix("sqlite:///"))
    if not uri.startswith("sqlite:///") or path.exists():
        return
    _environment()
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
    with atomic_path(path) as partial:
        SqlAlchemyStore(f"sqlite:///{partial}", str(state / "mlartifacts")).engine.dispose()
