"""The annotation backend that project.yaml chooses."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from redraft.project import Project
from redraft.segmentation.exam import ExamGeometry
from tasks.dispatch.backends import FolderBackend, ReviewBackend, SimulatedBackend


def backend_for(project: Project) -> FolderBackend:
    """The annotation backend that project.yaml chooses."""

    def geometry(exam_id: str) -> ExamGeometry:
        return ExamGeometry.load(project.image(exam_id).with_name("exam.json"))

    def attempts(assignment_id: str) -> int:
        row = project.ledger.one("assignment", assignment_id=assignment_id)
        return row["attempt"] if row else 0

    keys = project.checked_keys
    folders = {"folder": FolderBackend, "review": ReviewBackend}
    if project.config.dispatch.backend in folders:
        kind = folders[project.config.dispatch.backend]
        return kind(project.work, project.config.structures, geometry, keys=keys, attempts=attempts)
    if project.config.dispatch.backend == "dicomweb":
        return _dicomweb(project, geometry, attempts)
    from redraft.errors import ConfigError
    from redraft.reader_model import EffortParameters, VolumeParameters
    from redraft.segmentation.truth import TruthIndex

    simulation, config = project.config.simulation, project.config
    if simulation.oracle is None:
        raise ConfigError("The simulated backend needs truth.", "Set simulation.oracle in project.yaml to a folder.")
    truth = TruthIndex.scan(
        project.resolve(simulation.oracle),
        project.pseudonyms,
        config.structures,
    )
    series = {row["exam_id"]: row["series_id"] for row in project.ledger.rows("exam")}
    parameters = EffortParameters() if simulation.form == "contour" else VolumeParameters()
    return SimulatedBackend(
        project.work, lambda exam, image: truth.labels(series[exam], geometry(exam)), config.structures,
        config.dispatch.readers, parameters.scaled(simulation.scale), config.seed, keys=keys, attempts=attempts,
    )  # fmt: skip


def _dicomweb(
    project: Project, geometry: Callable[[str], ExamGeometry], attempts: Callable[[str], int]
) -> FolderBackend:
    from tasks.dispatch.dicomweb import DicomWebBackend
    from tasks.dispatch.pacs import ProjectPacs

    def done() -> list[str]:
        """Work of the last round that is in: what was taken in long ago is not watched for ever."""
        rows = project.ledger.rows("assignment", backend="dicomweb")
        last = max((row["round"] for row in rows), default=0)
        return [
            row["assignment_id"]
            for row in rows
            if row["round"] == last and row["state"] in ("RETURNED", "IN_REVIEW", "ACCEPTED")
        ]

    pacs = ProjectPacs(project, project.config.dispatch.pacs or "", lambda: datetime.now(UTC))
    return DicomWebBackend(
        project.work, project.config.structures, geometry, pacs=pacs, done=done, keys=project.checked_keys,
        attempts=attempts,
    )  # fmt: skip
