"""The adapter to MLflow. Nothing but this module imports it; MLflow holds copies, the ledger is the record."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from redraft.errors import ServiceError

ENV = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
# Who ran it and from where would name people and machines; these say what redraft wants said.
CONSTANT_TAGS = {"mlflow.user": "redraft", "mlflow.source.name": "redraft", "mlflow.source.type": "JOB"}
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
        os.environ.update(ENV)
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    @contextmanager
    def _reached(self) -> Iterator[None]:
        os.environ.update(ENV)
        import mlflow
        from mlflow.exceptions import MlflowException

        # MLflow resolves `models:/` sources through its process-wide URI, whatever the client was given.
        mlflow.set_tracking_uri(self.uri)
        try:
            yield
        except MlflowException as error:
            raise ServiceError(
                f"MLflow at {_shown(self.uri)} refused or does not answer ({error.error_code}).",
                "Start it (`redraft up`) or mend services.mlflow in project.yaml, then run the command again.",
                code="service.mlflow",
            ) from error

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

        The step's digest is the idempotency key: a finished run is found again, an unfinished one is marked FAILED.

        Parameters
        ----------
        curves : sequence of (metric name, step, value)
        package : Path
            The model package directory; copied as it is, no flavour, no pickle.
        """
        with self._reached():
            from mlflow.entities import Metric, Param, RunTag
            from mlflow.exceptions import MlflowException

            experiment = self._experiment(project)
            found = self._finished(experiment, step_digest)
            if found is not None:
                return found
            run = self.client.create_run(
                experiment, run_name=run_name, tags={**CONSTANT_TAGS, **tags, STEP_TAG: step_digest}
            )
            run_id = run.info.run_id
            now = int(time.time() * 1000)
            metrics = [Metric(name, value, now, step) for name, step, value in curves]
            for start in range(0, max(1, len(metrics)), 900):
                self.client.log_batch(
                    run_id,
                    metrics=metrics[start : start + 900],
                    params=[Param(key, value[:6000]) for key, value in params.items()] if start == 0 else [],
                    tags=[RunTag("redraft.members", params.get("members", ""))] if start == 0 else [],
                )
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
        """Log metrics of a model on a dataset, so that MLflow's own lineage shows both."""
        with self._reached():
            from mlflow.entities import Metric

            now = int(time.time() * 1000)
            self.client.log_inputs(logged.run_id, [_input(dataset)])
            self.client.log_batch(
                logged.run_id,
                metrics=[
                    Metric(
                        name, value, now, 0, model_id=logged.model_id, dataset_name=dataset.name,
                        dataset_digest=dataset.digest, run_id=logged.run_id,
                    )
                    for name, value in values.items()
                ],
            )  # fmt: skip

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

    def _experiment(self, name: str) -> str:
        experiment = self.client.get_experiment_by_name(name)
        if experiment is not None:
            return str(experiment.experiment_id)
        location = None
        if self.uri.startswith("sqlite:"):
            location = (self.state / "mlartifacts").as_uri()
        return str(self.client.create_experiment(name, artifact_location=location))

    def _finished(self, experiment: str, step_digest: str) -> Logged | None:
        for run in self.client.search_runs([experiment], f"tags.`{STEP_TAG}` = '{step_digest}'"):
            if run.info.status == "FINISHED":
                versions = self.client.search_model_versions(f"run_id = '{run.info.run_id}'")
                if versions:
                    return Logged(run.info.run_id, versions[0].tags[MODEL_TAG], str(versions[0].version))
            elif run.info.status == "RUNNING":  # its process died: one writer at a time
                self.client.set_terminated(run.info.run_id, "FAILED")
        return None


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


def _shown(uri: str) -> str:
    return "the project's own store" if uri.startswith("sqlite:") else uri.split("@")[-1]
