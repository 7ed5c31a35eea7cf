"""Taking exams in: every file offered ends in exactly one receipt.

Data flow: headers → groups by series → geometry → pixels → image.nii.gz → exam.json (written last: an image without it
was interrupted and does not count). One series' pixels are in memory at a time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from redraft.config.schema import Ingest, Structure
from redraft.dicom.geometry import SeriesGeometry, SliceGeometry, duplicates, series_geometry
from redraft.dicom.oracle import is_label_file, is_nifti, nifti_stem
from redraft.dicom.pixels import check_size, pixel_digest, read_series
from redraft.dicom.scan import Foreign, Header, files_below, read_header
from redraft.digest import sha256_file, sha256_json
from redraft.errors import ExamError, GeometryError
from redraft.files import write_text
from redraft.security.pseudonyms import Pseudonyms
from redraft.volumes import Volume, write_volume
from tasks.ingest.nifti import identify, label_receipt, read_nifti_exam
from tasks.ingest.receipts import ExamRecord, Receipt

SINGLE_FRAME = {
    "1.2.840.10008.5.1.4.1.1.2": "CT",
    "1.2.840.10008.5.1.4.1.1.4": "MR",
    "1.2.840.10008.5.1.4.1.1.128": "PT",
}
ENHANCED = {
    "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.130",
    "1.2.840.10008.5.1.4.1.1.2.2", "1.2.840.10008.5.1.4.1.1.4.4", "1.2.840.10008.5.1.4.1.1.128.1",
}  # fmt: skip
SEGMENTATION = {"1.2.840.10008.5.1.4.1.1.481.3", "1.2.840.10008.5.1.4.1.1.66.4"}
# Images computed from a series that is offered too, on a grid of their own (PS3.3 C.8.16.1).
REFORMATTED = {"MPR", "MIP", "MINIP", "PROJECTION IMAGE", "REFORMATTED", "CSA RESAMPLED", "DOSE", "SCREEN SAVE"}
# What splits one series into several volumes (4D, several echoes); splitting them is a later room's work.
VOLUME_KEYS = ("TemporalPositionIdentifier", "EchoNumbers", "AcquisitionNumber")


class Links(Protocol):
    """Where identities go: the vault."""

    def put_link(self, kind: str, pseudonym: str, identity: dict[str, Any]) -> None: ...

    def put_original(self, pseudonym: str, path: Path) -> None: ...


@dataclass(frozen=True)
class Known:
    """What the ledger knows of a series that was admitted before."""

    exam_id: str
    header_digest: str


@dataclass(frozen=True)
class Intake:
    """The rules and places of one intake.

    Parameters
    ----------
    known : mapping of series_id to Known
    data : Path
        The project's `data/`.
    """

    config: Ingest
    structures: Sequence[Structure]
    external: Sequence[str]
    pseudonyms: Pseudonyms
    known: Mapping[str, Known]
    data: Path
    vault: Links

    def run(self, paths: Sequence[Path]) -> Iterator[Receipt]:
        """Take in everything below `paths`; one receipt per series or stray file."""
        # Paths alone are kept while series are told apart, and headers read again series by series: memory does not
        # grow with the number of exams, at the price of half a millisecond a file.
        groups: dict[str, list[Path]] = {}
        nifti: list[Path] = []
        for path in files_below(paths):
            if path.name in ("DICOMDIR", "SHA256SUMS", "SOURCE.md") or path.name.startswith("."):
                yield self._stray(path, "not_an_image", "refused")
            elif is_nifti(path):
                nifti.append(path)
            else:
                header = read_header(path)
                if isinstance(header, Foreign):
                    yield self._stray(path, header.rule, "refused")
                else:
                    groups.setdefault(header.text("SeriesInstanceUID"), []).append(path)
        for uid in sorted(groups):
            headers = []
            for path in groups.pop(uid):
                header = read_header(path)
                if isinstance(header, Foreign) or header.text("SeriesInstanceUID") != uid:
                    yield self._stray(path, "changed_meanwhile", "refused")
                else:
                    headers.append(header)
            if headers:
                yield self._series(uid, headers)
        images = {nifti_stem(path): path for path in nifti if not is_label_file(path)}
        met = dict(self.known)  # two files of one name are one exam: the second never overwrites the first
        for path in nifti:
            if is_label_file(path):
                yield label_receipt(path, images.get(nifti_stem(path)), self.pseudonyms)
                continue
            receipt = self._nifti(path, met)
            if receipt.exam is not None:
                met[receipt.series_id] = Known(receipt.exam.exam_id, receipt.exam.header_digest)
            yield receipt

    # -- DICOM --------------------------------------------------------------------------------------------------------
    def _series(self, uid: str, headers: list[Header]) -> Receipt:
        series_id = self.pseudonyms.series_id(uid)
        paths = tuple(header.path for header in headers)
        aside = self._set_aside(headers)
        if aside is not None:
            rule, verdict = aside
            if verdict == "quarantined":
                for path in paths:
                    self.vault.put_original(series_id, path)
            return Receipt(series_id, verdict, rule, len(headers), paths=paths)  # type: ignore[arg-type]
        digest = self._header_digest(headers)
        known = self.known.get(series_id)
        if known is not None:
            same = known.header_digest == digest
            # An admitted exam is never replaced silently: labels may exist on its grid.
            verdict, rule = ("duplicate", "known") if same else ("refused", "changed_after_admission")
            return Receipt(series_id, verdict, rule, len(headers), known.exam_id, paths=paths)  # type: ignore[arg-type]
        try:
            for header in headers:
                check_size([header], self.config.max_voxels)  # before duplicates are compared by their pixels
            kept, dropped = self._drop_identical(headers)
            check_size(kept, self.config.max_voxels)
            geometry = series_geometry([_geometry(header) for header in kept], self.config.max_spacing_mm)
            volume = read_series(kept, geometry)
        except ExamError as error:
            self._link(series_id, headers[0], paths)
            return Receipt(series_id, "refused", error.rule, len(headers), measured=error.measured, paths=paths)
        patient = headers[0].text("PatientID") or headers[0].text("StudyInstanceUID")
        exam = self._write(
            volume, series_id, self.pseudonyms.exam_id(uid), self.pseudonyms.subject_id(patient),
            headers[0].text("Modality"), "dicom", digest, self._external(paths[0]), self._slices(kept, geometry),
        )  # fmt: skip
        self._link(series_id, headers[0], paths)
        self.vault.put_link("subject", exam.subject_id, {"patient_id": patient})
        measured = {"identical_duplicates_dropped": dropped} if dropped else {}
        return Receipt(series_id, "admitted", "admitted", len(headers), exam.exam_id, measured, paths, exam)

    def _set_aside(self, headers: Sequence[Header]) -> tuple[str, str] | None:
        """Rule and verdict for a series that is not a wanted single-frame CT, MR or PET; None for one that is."""
        first = headers[0]
        classes = {header.text("SOPClassUID") for header in headers}
        if len(classes) > 1:
            return "mixed_classes", "refused"
        (sop_class,) = classes
        if sop_class in SEGMENTATION:
            return "segmentation_object", "refused"
        if sop_class in ENHANCED:
            return "enhanced_multiframe", "refused"
        if sop_class not in SINGLE_FRAME:
            return "class_not_supported", "quarantined"
        if any(header.text("BurnedInAnnotation").upper() == "YES" for header in headers):
            return "burned_in_annotation", "quarantined"
        if first.text("Modality") not in {str(m) for m in self.config.modalities}:
            return "modality_not_wanted", "refused"
        kinds = {part.strip(" '[]").upper() for header in headers for part in header.text("ImageType").split(",")}
        if "LOCALIZER" in kinds:
            return "localizer", "refused"
        if reformatted := sorted(kinds & REFORMATTED):
            return f"derived_{reformatted[0].split()[0].lower()}", "refused"
        if "SECONDARY" in kinds and not self.config.accept_secondary:
            return "derived_secondary", "refused"
        if any((header.integer("NumberOfFrames") or 1) > 1 for header in headers):
            return "multiframe", "refused"
        if any((header.integer("SamplesPerPixel") or 1) > 1 for header in headers):
            return "colour", "refused"
        if any(header.text("PhotometricInterpretation") == "MONOCHROME1" for header in headers):
            return "monochrome1", "refused"
        frames = {header.text("FrameOfReferenceUID") for header in headers}
        if len(frames) > 1:
            return "mixed_frame_of_reference", "refused"
        return None

    def _drop_identical(self, headers: Sequence[Header]) -> tuple[list[Header], int]:
        """Drop identical copies of a slice; refuse conflicting copies and several volumes in one series."""
        geometry = [_geometry(header) for header in headers]
        if any(len(item.position) != 3 or len(item.orientation) != 6 for item in geometry):
            return list(headers), 0  # series_geometry says what is missing
        drop: set[int] = set()
        for group in duplicates(geometry):
            for key in VOLUME_KEYS:
                if len({headers[n].text(key) for n in group}) == len(group):
                    raise GeometryError(
                        "One series holds several volumes.", rule="several_volumes", measured={"by": key}
                    )
            if len({pixel_digest(headers[n].path) for n in group}) > 1:
                measured: dict[str, object] = {"slices": len(group)}
                raise GeometryError("Slices at one position differ.", rule="conflicting_duplicates", measured=measured)
            drop.update(sorted(group, key=lambda n: headers[n].text("SOPInstanceUID"))[1:])
        return [header for n, header in enumerate(headers) if n not in drop], len(drop)

    def _header_digest(self, headers: Sequence[Header]) -> str:
        """Identity of a series by its instances and sizes, without reading pixels (keyed: no UID leaks through it)."""
        # A set: a further copy of an instance (another folder of the same export) changes nothing.
        instances = {(self.pseudonyms.uid(h.text("SOPInstanceUID")), h.size) for h in headers}
        return sha256_json(sorted(map(list, instances)))

    def _slices(self, headers: Sequence[Header], geometry: SeriesGeometry) -> dict[str, Any]:
        """Per-slice geometry under pseudonymous UIDs, for segmentations that refer to the images."""
        ordered = [headers[n] for n in geometry.order]
        return {
            "frame_of_reference": self.pseudonyms.uid(ordered[0].text("FrameOfReferenceUID")),
            "orientation_lps": list(ordered[0].numbers("ImageOrientationPatient")),
            "instances": [
                {
                    "uid": self.pseudonyms.uid(h.text("SOPInstanceUID")),
                    "position_lps": list(h.numbers("ImagePositionPatient")),
                }
                for h in ordered
            ],
        }

    def _link(self, series_id: str, header: Header, paths: Sequence[Path]) -> None:
        names = ("PatientID", "PatientName", "StudyInstanceUID", "SeriesInstanceUID")
        identity = {name: header.text(name) for name in names}
        self.vault.put_link("series", series_id, {**identity, "folder": str(paths[0].parent)})

    # -- NIfTI --------------------------------------------------------------------------------------------------------
    def _nifti(self, path: Path, met: Mapping[str, Known]) -> Receipt:
        source = identify(path, self.pseudonyms)
        known = met.get(source.series_id)
        digest = sha256_file(path)
        if known is not None:
            same = known.header_digest == digest
            verdict, rule = ("duplicate", "known") if same else ("refused", "changed_after_admission")
            return Receipt(source.series_id, verdict, rule, 1, known.exam_id, paths=(path,))  # type: ignore[arg-type]
        if len(self.config.modalities) != 1:
            measured: dict[str, Any] = {"modalities": [str(m) for m in self.config.modalities]}
            return Receipt(source.series_id, "refused", "modality_unknown", 1, measured=measured, paths=(path,))
        try:
            volume = read_nifti_exam(path, self.config)
        except ExamError as error:
            return Receipt(source.series_id, "refused", error.rule, 1, measured=error.measured, paths=(path,))
        exam = self._write(
            volume, source.series_id, source.exam_id, source.subject_id, str(self.config.modalities[0]), "nifti",
            digest, self._external(path), {},
        )  # fmt: skip
        self.vault.put_link("series", source.series_id, {"file": str(path)})
        return Receipt(source.series_id, "admitted", "admitted", 1, exam.exam_id, {}, (path,), exam)

    # -- both ---------------------------------------------------------------------------------------------------------
    def _write(
        self, volume: Volume, series_id: str, exam_id: str, subject_id: str, modality: str, kind: str, digest: str,
        external: str | None, slices: dict[str, Any],
    ) -> ExamRecord:  # fmt: skip
        folder = self.data / "exams" / exam_id[:2] / exam_id
        image = folder / "image.nii.gz"
        write_volume(image, volume)
        record = ExamRecord(
            exam_id=exam_id,
            subject_id=subject_id,
            series_id=series_id,
            modality=modality,
            shape=list(volume.shape),
            spacing=[round(value, 6) for value in volume.spacing],
            affine=[[float(value) for value in row] for row in volume.affine],
            image_path=f"data/exams/{exam_id[:2]}/{exam_id}/image.nii.gz",
            image_sha256=sha256_file(image),
            image_bytes=image.stat().st_size,
            header_digest=digest,
            source_kind=kind,
            external=external,
        )
        content = {
            "schema_version": 1,
            "exam_id": exam_id,
            "subject_id": subject_id,
            "series_id": series_id,
            "modality": modality,
            "shape": record.shape,
            "spacing_mm": record.spacing,
            "affine_ras": record.affine,
            "dtype": str(volume.array.dtype),
            "range": [float(np.min(volume.array)), float(np.max(volume.array))],
            "image_sha256": record.image_sha256,
            "slices": slices,
        }
        write_text(folder / "exam.json", json.dumps(content, indent=1, sort_keys=True) + "\n")
        return record

    def _external(self, path: Path) -> str | None:
        return next((name for name in self.external if name in path.parts), None)

    def _stray(self, path: Path, rule: str, verdict: str) -> Receipt:
        return Receipt(self.pseudonyms.source_tag(str(path)), verdict, rule, 1, paths=(path,))  # type: ignore[arg-type]


def _geometry(header: Header) -> SliceGeometry:
    return SliceGeometry(
        header.numbers("ImagePositionPatient"),
        header.numbers("ImageOrientationPatient"),
        header.numbers("PixelSpacing"),
        (header.integer("Rows") or 0, header.integer("Columns") or 0),
    )
