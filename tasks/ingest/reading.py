"""What a worker does with one series: read it, write it under its pseudonyms, say what became of it.

Runs in a guarded process (redraft.workers) and writes files only: image.nii.gz, then exam.json (an image without it was
interrupted and does not count), and what leads back to people into the vault. The ledger is the caller's. Images lie
aside until their whole job is done: of a job that is lost nothing is in data/, where everything is published.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from redraft.deid import Deidentifier, quarantine_rule
from redraft.deid.values import Unreadable, term
from redraft.dicom.reading_physicians import reading_physicians
from redraft.dicom.scan import Foreign, read_header
from redraft.dicom.series import ReadRules, Series, SeriesVolume, open_series
from redraft.digest import sha256_file, sha256_json
from redraft.errors import ExamError, SetAside
from redraft.files import write_text
from redraft.security.pseudonyms import Pseudonyms
from redraft.security.vault import Vault
from redraft.volumes import Volume, grid_difference, read_volume, write_volume
from tasks.ingest.jobs import Job, Setup
from tasks.ingest.nifti import identify, label_receipt, read_nifti_exam
from tasks.ingest.receipts import ExamRecord, Receipt


def shown(key: str) -> str:
    """What tells a volume from the others of its series, for the receipt: numbers and known terms, no typed text."""

    def word(text: str) -> str:
        try:
            float(text.lstrip("#"))
            return text
        except ValueError:
            pass
        try:
            return term(text)
        except Unreadable:
            return "OTHER" if text else ""

    parts = []
    for part in re.split(r",(?=[A-Za-z]+=)", key):
        attribute, _, value = part.partition("=")
        words = "\\".join(map(word, value.split("\\")))
        parts.append(f"{attribute}={words}")
    return ",".join(parts)


def scanner(setup: Setup) -> Callable[[list[str]], list[tuple[str | None, str | None]]]:
    """Start of a worker that reads headers: paths to (series pseudonym, None) or (None, rule)."""
    pseudonyms = Pseudonyms(setup.open().keys)
    by_folder = setup.config.ingest.nameless_series == "by_folder"

    def scan(paths: list[str]) -> list[tuple[str | None, str | None]]:
        found: list[tuple[str | None, str | None]] = []
        for path in paths:
            header = read_header(Path(path), nameless=by_folder)
            if isinstance(header, Foreign):
                found.append((None, header.rule))
            else:
                uid = header.text("SeriesInstanceUID")
                place = f"{os.path.dirname(path)}\0{header.text('FrameOfReferenceUID')}"
                found.append((pseudonyms.series_id(uid or f"nameless/{place}"), None))
        return found

    return scan


def reader(setup: Setup) -> Callable[[Job], list[Receipt]]:
    """Start of a worker that takes series in."""
    return Reader(setup).read


class Reader:
    """Reads one series after the other; the pixels of one are in memory at a time."""

    def __init__(self, setup: Setup):
        project = setup.open()
        self._config, self._data, self._admitted = project.config, project.data, setup.admitted
        self._pseudonyms = Pseudonyms(project.keys)
        self._deid = Deidentifier.of(setup.config, self._pseudonyms)
        self._vault = Vault(project.vault_dir, project.keys)
        self._aside: list[tuple[Path, str]] = []  # images of the job at hand, and the text of their exam.json

    def read(self, job: Job) -> list[Receipt]:
        """Receipts of one job: one, or one per volume where a series holds several."""
        self._aside = []
        try:
            receipts = self._receipts(job)
            for image, text in self._aside:
                os.replace(_beside(image), image)
                write_text(image.with_name("exam.json"), text)
        finally:
            for image, _ in self._aside:
                _beside(image).unlink(missing_ok=True)
        return receipts

    def _receipts(self, job: Job) -> list[Receipt]:
        if job.kind == "label":
            return [label_receipt(job.paths[0], job.image, self._pseudonyms)]
        return self._nifti(job) if job.kind == "nifti" else self._dicom(job)

    # -- DICOM --------------------------------------------------------------------------------------------------------
    def _dicom(self, job: Job) -> list[Receipt]:
        rules = ReadRules.of(self._config, job.selection)
        try:
            series = open_series(job.paths, rules)
        except ExamError as error:
            return [self._refused(job, error)]
        for marking in series.markings:  # a picture of a screen may be one image among many
            if rule := quarantine_rule(marking, self._config.deid):
                return [self._set_aside(job, rule, {})]
        receipts: list[Receipt] = []
        self._link(job, series)
        for found in series.volumes():
            if isinstance(found, ExamError):
                receipts.append(self._refused(job, found))
            else:
                receipts.append(self._volume(job, series, found))
        # Each file counts once, whatever it holds.
        return [replace(receipt, files=0 if n else len(job.paths)) for n, receipt in enumerate(receipts)]

    def _refused(self, job: Job, error: ExamError) -> Receipt:
        if isinstance(error, SetAside) and error.verdict == "quarantined":
            return self._set_aside(job, error.rule, error.measured)
        self._link_paths(job)
        return Receipt(job.series_id, "refused", error.rule, len(job.paths), measured=error.measured)

    def _set_aside(self, job: Job, rule: str, measured: dict[str, Any]) -> Receipt:
        """Quarantine: the originals go into the vault, encrypted and unseen."""
        for path in job.paths:
            self._vault.put_original(job.series_id, path)
        return Receipt(job.series_id, "quarantined", rule, len(job.paths), measured=measured)

    def _volume(self, job: Job, series: Series, found: SeriesVolume) -> Receipt:
        # A series without a name is known by its folder, and so is its subject (ingest.nameless_series).
        uid = str(series.header.get("SeriesInstanceUID") or "") or f"nameless/{job.series_id}"
        part = f"#{found.key}" if found.key else ""
        series_id = self._pseudonyms.series_id(f"{uid}{part}") if part else job.series_id
        exam_id = self._pseudonyms.exam_id(f"{uid}{part}")
        measured = dict(found.measured) | ({"volume": shown(found.key)} if found.key else {})
        if exam_id in self._admitted or exam_id in job.fresh:
            return self._again(found.volume, series_id, exam_id)
        if job.doubt is not None:
            return Receipt(series_id, "refused", job.doubt, len(job.paths))
        patient = str(series.header.get("PatientID") or series.header.get("StudyInstanceUID") or uid)
        instances = {(self._pseudonyms.uid(uid), size) for uid, size in series.instances}
        record = ExamRecord(
            exam_id=exam_id,
            subject_id=self._pseudonyms.subject_id(patient),
            series_id=series_id,
            modality=series.modality,
            header_digest=sha256_json(sorted(map(list, instances))),
            source_kind="dicom",
            external=job.external,
            **self._placed(exam_id, found.volume),
        )
        self._vault.put_link("subject", record.subject_id, {"patient_id": patient})
        # Before the names go: whoever read the study is not given its exam (dispatch.readers.reader_of_record).
        read_by = sorted({self._pseudonyms.person_id(name) for name in reading_physicians(found.header)})
        header = self._deid.header(found.header)
        self._write(record, found.volume, self._identity(job, series, found), header, read_by)
        return Receipt(series_id, "admitted", "admitted", len(job.paths), exam_id, measured, exam=record)

    def _identity(self, job: Job, series: Series, found: SeriesVolume) -> dict[str, Any]:
        """Per-slice geometry under pseudonymous UIDs: what segmentations refer to."""
        uid = self._pseudonyms.uid
        header = series.header
        return {
            "study": uid(str(header.StudyInstanceUID)) if header.get("StudyInstanceUID") else None,
            "series": uid(str(header.get("SeriesInstanceUID") or f"nameless/{job.series_id}")),
            "sop_class": str(header.SOPClassUID),
            "frame_of_reference": uid(found.frame_of_reference) if found.frame_of_reference else None,
            "orientation_lps": list(found.orientation_lps),
            # Then image k is not slice k, however well their places agree.
            "resampled": found.resampled,
            "instances": [
                {"uid": uid(item.uid), "frame": item.frame, "position_lps": list(item.position_lps)}
                for item in found.slices
            ],
        }

    def _link(self, job: Job, series: Series) -> None:
        names = ("PatientID", "PatientName", "StudyInstanceUID", "SeriesInstanceUID")
        identity = {name: str(series.header.get(name) or "") for name in names}
        place = {"source": job.source} | ({"folder": str(job.paths[0].parent)} if job.source == "folder" else {})
        self._vault.put_link("series", job.series_id, {**identity, **place})

    def _link_paths(self, job: Job) -> None:
        """Of a series that could not be opened its key holder can still tell what it was."""
        header = read_header(job.paths[0])
        names = ("PatientID", "PatientName", "StudyInstanceUID", "SeriesInstanceUID")
        identity = {} if isinstance(header, Foreign) else {name: header.text(name) for name in names}
        place = {"source": job.source} | ({"folder": str(job.paths[0].parent)} if job.source == "folder" else {})
        self._vault.put_link("series", job.series_id, {**identity, **place})

    # -- NIfTI --------------------------------------------------------------------------------------------------------
    def _nifti(self, job: Job) -> list[Receipt]:
        (path,) = job.paths
        source = identify(path, self._pseudonyms)
        if len(self._config.ingest.modalities) != 1:
            measured: dict[str, Any] = {"modalities": [str(m) for m in self._config.ingest.modalities]}
            return [Receipt(source.series_id, "refused", "modality_unknown", 1, measured=measured)]
        try:
            volume = read_nifti_exam(path, self._config.ingest)
        except ExamError as error:
            return [Receipt(source.series_id, "refused", error.rule, 1, measured=error.measured)]
        if source.exam_id in self._admitted or source.exam_id in job.fresh:
            return [self._again(volume, source.series_id, source.exam_id)]
        record = ExamRecord(
            exam_id=source.exam_id,
            subject_id=source.subject_id,
            series_id=source.series_id,
            modality=str(self._config.ingest.modalities[0]),
            header_digest=sha256_file(path),
            source_kind="nifti",
            external=job.external,
            **self._placed(source.exam_id, volume),
        )
        self._write(record, volume, {}, {})
        self._vault.put_link("series", source.series_id, {"source": job.source, "file": str(path)})
        return [Receipt(source.series_id, "admitted", "admitted", 1, source.exam_id, exam=record)]

    # -- both ---------------------------------------------------------------------------------------------------------
    def _again(self, volume: Volume, series_id: str, exam_id: str) -> Receipt:
        """An admitted exam is never replaced, for labels may exist on its grid: the same voxels, or refused."""
        known = read_volume(self._image(exam_id))
        difference = grid_difference(known, volume)
        if difference is None and np.array_equal(known.array, volume.array):
            return Receipt(series_id, "duplicate", "known", 1, exam_id)
        measured = difference or {"voxels": int((known.array != volume.array).sum())}
        return Receipt(series_id, "refused", "changed_after_admission", 1, exam_id, measured)

    def _image(self, exam_id: str) -> Path:
        return self._data / "exams" / exam_id[:2] / exam_id / "image.nii.gz"

    def _placed(self, exam_id: str, volume: Volume) -> dict[str, Any]:
        """Write the image aside; the fields of the record that tell of it."""
        image = _beside(self._image(exam_id))
        write_volume(image, volume)
        return {
            "shape": list(volume.shape),
            "spacing": [round(value, 6) for value in volume.spacing],
            "affine": [[float(value) for value in row] for row in volume.affine],
            "image_path": f"data/exams/{exam_id[:2]}/{exam_id}/image.nii.gz",
            "image_sha256": sha256_file(image),
            "image_bytes": image.stat().st_size,
        }

    def _write(
        self, record: ExamRecord, volume: Volume, slices: dict[str, Any], header: dict[str, Any],
        read_by: Sequence[str] = (),
    ) -> None:  # fmt: skip
        content = {
            "schema_version": 1,
            "exam_id": record.exam_id,
            "subject_id": record.subject_id,
            "series_id": record.series_id,
            "modality": record.modality,
            "shape": record.shape,
            "spacing_mm": record.spacing,
            "affine_ras": record.affine,
            "dtype": str(volume.array.dtype),
            "range": [float(np.min(volume.array)), float(np.max(volume.array))],
            "image_sha256": record.image_sha256,
            "slices": slices,
            "read_by": list(read_by),
            **({"deid": self._deid.statement(), "header": header} if header else {}),
        }
        self._aside.append((self._image(record.exam_id), json.dumps(content, indent=1, sort_keys=True) + "\n"))


def _beside(image: Path) -> Path:
    """Where an image lies until its job is done; by its name part of no dataset, and swept with other partial files."""
    return image.with_name(f".partial-{image.name}")
