"""What a guarded process does with one altered input: everything an intake does, and then whether the answer may stand.

Runs in redraft.workers, so that a crash, a hang and a blow-up are seen as what they are. Problems that are no crash are
returned as text: values that are not finite, a geometry that breaks the rules, voxels that an independent reader sees
elsewhere, an identifier in a receipt.
"""

from __future__ import annotations

import json
import shutil
import threading
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom

from redraft.config.sources import DicomWebSource as WebSection
from redraft.dicom.scan import Foreign, Header, read_header
from redraft.errors import ExamError, ServiceError
from redraft.project import Project
from redraft.segmentation.read import interpret
from redraft.selection import Selection
from redraft.sources.archives import ArchiveLimits, unpack
from redraft.sources.dicomweb import DicomWebSource
from redraft.sources.protocol import SourceContext
from tasks.ingest.jobs import Job, Setup
from tasks.ingest.reading import Reader
from tasks.ingest.receipts import Receipt
from tests.fuzz.seeds import Kind, exam, structures

MAX_VOXELS = 4_000_000
CLASSIC = {"1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.128"}
# Decoded by another library than GDCM, which ends the process on some streams: the comparison must not add to that.
COMPARED = {
    "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.5",
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One altered input; `tolerant` takes it in by the rules that resample and accept more."""

    seed: str
    kind: Kind
    files: dict[str, bytes] = field(repr=False)
    names: tuple[str, ...] = field(default=(), repr=False)
    tolerant: bool = False


@dataclass(frozen=True)
class Answer:
    """What came of it: (verdict, rule) of each receipt, what is wrong with them, and seconds."""

    outcomes: tuple[tuple[str, str], ...]
    problems: tuple[str, ...]
    seconds: float


def start(root: str, work: str) -> Callable[[Case], Answer]:
    """Start of a worker; `root` is a project, `work` a folder."""
    own = Path(work) / f"w{time.monotonic_ns()}"  # exams have the same names in every process: none reads another's
    shutil.copytree(root, own / "project", symlinks=True)
    return Target(Project.open(own / "project"), own).judge


class Target:
    """Takes altered inputs in, one after the other."""

    def __init__(self, project: Project, work: Path):
        self._project, self._work, self._count = project, work / "cases", 0
        ingest = project.config.ingest.model_copy(update={"max_voxels": MAX_VOXELS, "modalities": ("CT", "MR", "PT")})
        tolerant = ingest.model_copy(update={
            "gantry_tilt": "resample", "uneven_spacing": "resample", "accept_secondary": True,
            "nameless_series": "by_folder",
        })  # fmt: skip
        nifti = ingest.model_copy(update={"modalities": ("CT",)})
        setup = Setup.of(project)
        self._readers = {
            name: Reader(replace(setup, config=project.config.model_copy(update={"ingest": rules})))
            for name, rules in (("strict", ingest), ("tolerant", tolerant), ("nifti", nifti))
        }
        self._web: _Answers | None = None

    def judge(self, case: Case) -> Answer:
        """Take one input in and judge what came of it."""
        began = time.monotonic()
        folder = self._work / str(self._count)
        self._count += 1
        folder.mkdir(parents=True)
        try:
            for name, data in case.files.items():
                (folder / name).write_bytes(data)
            if case.kind == "label":
                outcomes, problems = self._label(folder, case)
            else:
                paths, receipts = self._fetched(folder, case)
                receipts += self._taken(paths, case)
                outcomes = [(receipt.verdict, receipt.rule) for receipt in receipts]
                problems = [p for receipt in receipts for p in self._wrong(receipt, paths, case)]
                if not receipts:
                    problems.append("no receipt")
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return Answer(tuple(outcomes), tuple(problems), time.monotonic() - began)

    # -- as an intake does --------------------------------------------------------------------------------------------
    def _fetched(self, folder: Path, case: Case) -> tuple[list[Path], list[Receipt]]:
        if case.kind == "web":
            return self._from_web(folder, case)
        paths = sorted(path for path in folder.iterdir() if path.is_file())
        if case.kind != "archive":
            return paths, []
        found, receipts = [], []
        limits = ArchiveLimits(20_000_000, 1000)
        for member in unpack(paths[0], folder / "out", limits, self._project.pseudonyms):
            if member.path is not None:
                found.append(member.path)
            else:
                receipts.append(Receipt(f"member{member.number}", "refused", member.rule or "", 1))
        if not found and not receipts:
            receipts.append(Receipt("archive", "refused", "empty_archive", 1))
        return found, receipts

    def _from_web(self, folder: Path, case: Case) -> tuple[list[Path], list[Receipt]]:
        self._web = self._web or _Answers()
        self._web.files = case.files
        retry = {"attempts": 1, "wait_seconds": 0.01, "timeout_seconds": 2.0}
        section = WebSection.model_validate(
            {"kind": "dicomweb", "name": "pacs", "url": self._web.url, "retry": retry, "page": 50}
        )
        context = SourceContext(self._project.pseudonyms, str, self._project.root, folder)
        source = DicomWebSource(section, context, wait=lambda _: None)
        paths, receipts = [], []
        try:
            for n, offer in enumerate(source.discover()):
                if offer.refused is not None:
                    receipts.append(Receipt(offer.series_id, "refused", offer.refused, 1))
                    continue
                (folder / f"spool{n}").mkdir()
                try:
                    paths += source.fetch(offer, folder / f"spool{n}")
                except ExamError as error:
                    receipts.append(Receipt(offer.series_id, "refused", error.rule, 1, measured=error.measured))
                except ServiceError as error:
                    receipts.append(Receipt(offer.series_id, "refused", error.code, 1))
        except ServiceError as error:
            receipts.append(Receipt("source", "refused", error.code, 1))
        if not paths and not receipts:
            receipts.append(Receipt("source", "refused", "nothing_offered", 0))
        return paths, receipts

    def _taken(self, paths: Sequence[Path], case: Case) -> list[Receipt]:
        if case.kind == "nifti":
            return self._readers["nifti"].read(Job("s", "folder", "nifti", tuple(paths), Selection()))
        reader = self._readers["tolerant" if case.tolerant else "strict"]
        groups, receipts = defaultdict(list), []
        for path in paths:
            header = read_header(path, nameless=case.tolerant)
            if isinstance(header, Foreign):
                receipts.append(Receipt("file", "refused", header.rule, 1))
            else:
                groups[header.text("SeriesInstanceUID")].append(path)
        for n, group in enumerate(groups.values()):
            receipts += reader.read(Job(f"series{n}", "folder", "dicom", tuple(group), Selection()))
        return receipts

    def _label(self, folder: Path, case: Case) -> tuple[list[tuple[str, str]], list[str]]:
        (path,) = folder.iterdir()
        where = exam()
        try:
            labels = interpret(path, where, structures(), unknown="ignore" if case.tolerant else "refuse").labels
        except ExamError as error:
            text = f"{error} {error.measured}"
            return [("refused", error.rule)], [f"identifier in an error of {error.rule}"] if "2.25." in text else []
        problems = []
        if labels.shape != where.shape or labels.dtype != np.uint8:
            problems.append(f"labels of shape {labels.shape}, {labels.dtype}")
        elif not set(np.unique(labels).tolist()) <= {0, 1, 2}:
            problems.append("label values that the project does not know")
        return [("admitted", "label")], problems

    # -- may it stand? ------------------------------------------------------------------------------------------------
    def _wrong(self, receipt: Receipt, paths: Sequence[Path], case: Case) -> Iterator[str]:
        if receipt.verdict not in ("admitted", "duplicate", "quarantined", "refused") or not receipt.rule:
            yield "a receipt without verdict or rule"
        try:
            text = json.dumps(receipt.record(), allow_nan=False)
        except (TypeError, ValueError):
            yield f"{receipt.rule}: measured values that are no JSON"
            text = repr(receipt.record())
        if [name for name in case.names if name and name in text]:
            yield f"{receipt.rule}: an identifier in a receipt"
        if receipt.exam is not None:
            yield from self._exam_wrong(receipt, paths, case)

    def _exam_wrong(self, receipt: Receipt, paths: Sequence[Path], case: Case) -> Iterator[str]:
        record = receipt.exam
        assert record is not None
        path = self._project.root / record.image_path
        image = nib.load(path)
        array, affine = np.asarray(image.dataobj), image.affine  # type: ignore[attr-defined]
        content = json.loads(path.with_name("exam.json").read_text(encoding="utf-8"))
        if not np.isfinite(array.astype(np.float64)).all() or not np.isfinite(affine).all():
            yield "values that are not finite"
            return
        if list(array.shape) != record.shape or array.ndim != 3 or not 0 < array.size <= MAX_VOXELS:
            yield f"shape {array.shape} where the record says {record.shape}"
            return
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        if not (spacing > 0).all():
            yield f"spacing {spacing}"
            return
        if spacing[2] > self._project.config.ingest.max_spacing_mm * (1 + 1e-6):
            yield f"spacing {spacing}"
        directions = affine[:3, :3] / spacing
        if np.abs(directions.T @ directions - np.eye(3)).max() > 3e-3:
            yield f"axes are not at right angles: {np.abs(directions.T @ directions - np.eye(3)).max():.5f}"
        if receipt.exam is not None and record.source_kind == "dicom" and "resampled" not in receipt.measured:
            yield from self._slices_wrong(content["slices"], array.astype(np.float64), affine, paths)

    def _slices_wrong(self, slices: dict[str, Any], array: Any, affine: Any, paths: Sequence[Path]) -> Iterator[str]:
        """Each slice against pydicom's own reading of its file: where it lies and what it holds."""
        instances = slices["instances"]
        if len(instances) != array.shape[2]:
            yield f"{len(instances)} instances for {array.shape[2]} slices"
            return
        step = float(np.linalg.norm(affine[:3, 2]))
        originals: dict[str, list[Any]] = defaultdict(list)
        for path in paths:
            header = read_header(path, nameless=True)
            if not isinstance(header, Header) or header.text("SOPClassUID") not in CLASSIC:
                continue
            dataset = _by_pydicom(path)
            if dataset is not None:
                originals[self._project.pseudonyms.uid(str(dataset.SOPInstanceUID))].append(dataset)
        for k, instance in enumerate(instances):
            place = (affine @ [0, 0, k, 1])[:3] * (-1, -1, 1)
            if np.abs(place - instance["position_lps"]).max() > 0.11 * step + 0.11:
                yield f"slice {k} is said at {np.round(place, 3)} and lies at {instance['position_lps']}"
            same = originals.get(instance["uid"], [])
            if len(same) == 1:
                yield from _differs(same[0], array[:, :, k].T, place, step)


def _by_pydicom(path: Path) -> Any | None:
    """A file as pydicom reads it, with `values`; None where it does not."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(BytesIO(path.read_bytes()))
            if str(dataset.file_meta.TransferSyntaxUID) not in COMPARED or int(dataset.get("NumberOfFrames") or 1) != 1:
                return None
            stored = dataset.pixel_array
            slope, intercept = dataset.get("RescaleSlope"), dataset.get("RescaleIntercept")
            scale = 1.0 if slope in (None, "") else float(slope)
            values = stored * scale + (0.0 if intercept in (None, "") else float(intercept))
            place = [float(value) for value in dataset.ImagePositionPatient]
            if values.ndim != 2 or len(place) != 3:
                return None
            return _Slice(str(dataset.SOPInstanceUID), values, place)
    except Exception:  # another reader's trouble is not ours to judge
        return None


@dataclass(frozen=True)
class _Slice:
    SOPInstanceUID: str
    values: Any
    place: list[float]


def _differs(original: _Slice, ours: Any, place: Any, step: float) -> Iterator[str]:
    if np.abs(np.array(original.place) - place).max() > 0.11 * step + 0.11:
        yield "a slice lies elsewhere than pydicom reads"
    if original.values.shape != ours.shape:
        yield f"a slice of shape {ours.shape} where pydicom reads {original.values.shape}"
    elif not np.allclose(ours, original.values, rtol=1e-5, atol=1e-6 * max(1.0, float(np.abs(ours).max()))):
        share = float(np.mean(~np.isclose(ours, original.values, rtol=1e-5)))
        yield f"a slice of other values than pydicom reads ({share:.0%} of the voxels)"


class _Answers:
    """An HTTP server that answers with the files of a case, whatever it is asked."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        answers = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def do_GET(self) -> None:
                path, _, query = self.path.partition("?")
                if path.endswith("/instances"):
                    name, kind = "listing.json", "application/dicom+json"
                elif "/series/" in path and "/instances/" not in path:
                    name, kind = "series.multipart", 'multipart/related; type="application/dicom"; boundary=edge'
                elif path.endswith("/series"):
                    name, kind = "search.json", "application/dicom+json"
                else:
                    self.send_error(404)
                    return
                body = answers.files[name]
                # Answers of one page: a server that never ends is another test's.
                if "offset=" in query and "offset=0" not in query and kind.endswith("json"):
                    body = b"[]"
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:
                pass

        server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()
