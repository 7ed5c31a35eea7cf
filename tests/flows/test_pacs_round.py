"""A full round from a PACS and back: exams asked for, moved and sent, segmentations stored beside them, proof of both.

One project takes its exams from one Orthanc in three ways (DICOMweb, C-MOVE, and what Orthanc stores at `redraft
receive`), so that one round serves them all. Everything is the real command line in processes of its own.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from redraft.create import create_project
from redraft.phantom import write_phantom
from redraft.project import Project
from redraft.segmentation.export import geometry
from redraft.segmentation.read import read_segmentation
from redraft.volumes import read_volume
from tests.servers.dimse import free_port, wait_until
from tests.servers.faulty import FaultyProxy, faulty_proxy
from tests.servers.orthanc import Orthanc, running_orthanc

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMS, SLICES = 10, 16
# By study date: four over DICOMweb, two by C-MOVE; the rest is sent to us, a later study of a moved patient with them.
WEB, MOVED, SENT = range(0, 4), range(4, 6), range(6, 10)
# What hospitals leave out (PS3.3 C.7.1.1: type 2, may be empty; absent in practice).
OPTIONAL = ("PatientBirthDate", "PatientSex", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "StudyID")
ABSENT, EMPTY = (0, 4, 7), (1, 5, 8)

SOURCES = """ingest:
  modalities: [CT]
  sources:
    - kind: dicomweb
      name: pacs
      url: URL
      basic: {user: {env: PACS_USER}, password: {file: PASSWORD}}
      retry: {attempts: 2, wait_seconds: 0.1}
      wanted: {modalities: [CT], dates: [2024-01-01, 2024-04-30]}
    - kind: dimse
      name: archive
      host: 127.0.0.1
      pacs_port: DICOM_PORT
      pacs_title: ORTHANC
      port: MOVE_PORT
      retry: {attempts: 2, wait_seconds: 0.1}
      wanted: {modalities: [CT], dates: [2024-05-01, 2024-07-31]}
    - kind: receive
      name: router
      ae_title: ROUTER
      port: RECEIVE_PORT
      bind: 127.0.0.1
      quiet_seconds: 0.5
      allow: [{ae_title: ORTHANC}]
"""
SETTINGS = {
    "splits: {validation: 0.12, test: 0.25, min_validation: 2, min_test: 4}": (
        "splits: {validation: 0.1, test: 0.3, min_validation: 1, min_test: 3}"
    ),
    "budget: {exams: 5}": "budget: {exams: 3}",
    "backend: folder": "backend: simulated",
    "train:\n  members: 2\n  steps: 400": "train:\n  channels: [4, 8]\n  members: 2\n  steps: 12\n  threads: 1",
    "gate:\n": "simulation: {oracle: TRUTH}\n\ngate:\n",
    "floor: {kidney: 0.6, kidney_tumor: 0.05}": "floor: {kidney: 0.0, kidney_tumor: 0.0}",
}
EXPORT = ("label", "export", "--format", "seg", "--to", "pacs", "--by", "alma", "--reason", "tumour board")
# Several commands of one process: each would spend its first seconds on the same imports.
RUN = """
import contextlib, io, json, sys
from app.cli.main import main
done = []
for argv in json.loads(sys.argv[1]):
    out, code, sys.argv = io.StringIO(), 0, ["redraft", *argv]
    with contextlib.redirect_stdout(out):
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
    done.append((code, out.getvalue()))
    if code:
        break
json.dump(done, sys.stdout)
"""


@dataclass
class House:
    """A hospital in small: the PACS, a proxy that counts what is asked of it, the project, and what commands said."""

    orthanc: Orthanc
    proxy: FaultyProxy
    log: Path
    project: Project
    phantom: Path
    exams: list[list[Dataset]]
    said: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)

    def redraft(self, *commands: tuple[object, ...]) -> list[tuple[int, str]]:
        """Exit code and output of each command, run one after the other in one process; ends at the first failure."""
        root = str(self.project.root)
        lines = [[*map(str, command), *([] if "--project" in command else ["--project", root])] for command in commands]
        done = subprocess.run(
            [sys.executable, "-c", RUN, json.dumps(lines)], env=self.environment, capture_output=True, text=True,
            timeout=240,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        return [(code, out or done.stderr) for code, out in json.loads(done.stdout)]

    def ran(self, *commands: tuple[object, ...]) -> list[Any]:
        """The JSON that commands print; all of them must succeed."""
        answers = self.redraft(*((*command, "--json") for command in commands))
        assert [code for code, _ in answers] == [0] * len(commands), answers[-1][1][-3000:]
        return [json.loads(out) for _, out in answers]

    def segmentations(self) -> dict[str, tuple[bytes, Dataset]]:
        """Every SEG in the PACS by the exam it is about: its file, and read."""
        found = {}
        for series in self.orthanc.find("Series", Modality="SEG"):
            for instance in self.orthanc.get(f"series/{series}")["Instances"]:
                content = self.orthanc.rest("GET", f"instances/{instance}/file").content
                dataset = read(content)
                original = str(dataset.ReferencedSeriesSequence[0].SeriesInstanceUID)
                exam = self.project.pseudonyms.exam_id(original)
                assert exam not in found, "one exam has two segmentations"
                found[exam] = (content, dataset)
        return found


def read(content: bytes) -> Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pydicom.dcmread(io.BytesIO(content))


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """The whole way, once: three ways in, a round, a decision, segmentations into the PACS, a second round opened."""
    folder = tmp_path_factory.mktemp("hospital")
    phantom, exams = _phantom(folder / "phantom")
    move_port, receive_port = free_port(), free_port()
    modalities = {
        "mover": ("REDRAFT", "127.0.0.1", move_port),
        "receiver": ("ROUTER", "127.0.0.1", receive_port),
    }
    with running_orthanc(folder / "orthanc", modalities=modalities) as orthanc, faulty_proxy(orthanc.url) as proxy:
        (folder / "password").write_text(orthanc.password + "\n")
        (folder / "password").chmod(0o600)
        studies = _fill(orthanc, phantom)
        orthanc.rest("PUT", "tools/log-level", data="verbose")
        environment = {
            **os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "PACS_USER": orthanc.user,
        }  # fmt: skip
        root = folder / "kidneys"
        subprocess.run(
            [sys.executable, "-c", "from app.cli.main import main; main()", "init", str(root), "--template",
             "kidney-ct", "--demo-keys"], env=environment, check=True, capture_output=True, timeout=60,
        )  # fmt: skip
        _configure(
            root / "project.yaml",
            {
                "URL": f"{proxy.url}/dicom-web", "PASSWORD": str(folder / "password"), "TRUTH": str(phantom / "truth"),
                "DICOM_PORT": str(orthanc.dicom_port), "MOVE_PORT": str(move_port), "RECEIVE_PORT": str(receive_port),
            },
        )  # fmt: skip
        it = House(
            orthanc, proxy, folder / "orthanc" / "orthanc.log", Project.open(root), phantom, exams,
            environment=environment,
        )  # fmt: skip
        _add_account(it, folder / "alma.password")
        _receive(it, [studies[n] for n in SENT])
        _round(it)
        yield it


def _add_account(house: House, password: Path) -> None:
    """Somebody who may decide and send, and whose password the commands find in a file."""
    password.write_text("a long enough sentence\n")
    password.chmod(0o600)
    house.environment["REDRAFT_PASSWORD_FILE"] = str(password)
    house.ran(("user", "add", "alma", "--name", "Dr A", "--role", "approver", "--role", "ops"))


def _phantom(folder: Path) -> tuple[Path, list[list[Dataset]]]:
    """Exams as hospitals have them: some without what may be absent, some with it empty. By study date."""
    write_phantom(folder, EXAMS, 3, shape=(48, 40, SLICES), spacing=(7.2, 7.2, 12.0))
    by_study: dict[str, list[Path]] = {}
    for path in sorted((folder / "images").rglob("*.dcm")):
        header = pydicom.dcmread(path, stop_before_pixels=True)
        by_study.setdefault(f"{header.StudyDate} {header.StudyInstanceUID}", []).append(path)
    exams = []
    for number, key in enumerate(sorted(by_study)):
        headers = []
        for path in by_study[key]:
            dataset = pydicom.dcmread(path)
            for name in OPTIONAL if number in (*ABSENT, *EMPTY) else ():
                if number in EMPTY:
                    setattr(dataset, name, "")
                elif name in dataset:
                    delattr(dataset, name)
            dataset.save_as(path)
            headers.append(pydicom.dcmread(path, stop_before_pixels=True))
        exams.append(headers)
    return folder, exams


def _fill(orthanc: Orthanc, phantom: Path) -> list[str]:
    """Orthanc's ids of the studies, by date."""
    orthanc.put(sorted((phantom / "images").rglob("*.dcm")))
    dates = {orthanc.get(f"studies/{one}")["MainDicomTags"]["StudyDate"]: one for one in orthanc.get("studies")}
    assert len(dates) == EXAMS
    return [dates[date] for date in sorted(dates)]


def _configure(path: Path, values: dict[str, str]) -> None:
    text = path.read_text()
    for old, new in {"ingest:\n  modalities: [CT]\n": SOURCES, **SETTINGS}.items():
        assert old in text, old
        text = text.replace(old, new)
    for name in sorted(values, key=len, reverse=True):
        text = text.replace(name, values[name])
    path.write_text(text)


def _receive(house: House, studies: list[str]) -> None:
    """`redraft receive` runs while the PACS stores some studies at it."""
    command = [sys.executable, "-c", "from app.cli.main import main; main()", "receive"]
    service = subprocess.Popen(
        [*command, "--project", str(house.project.root)], env=house.environment, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert service.stdout is not None
    lines: list[str] = []
    reader = threading.Thread(target=lambda: lines.extend(iter(service.stdout.readline, "")), daemon=True)
    reader.start()
    try:
        wait_until(lambda: any("Ctrl-C" in line for line in lines), "the receiver listens")
        house.orthanc.rest("POST", "modalities/receiver/store", json=studies)

        def ready() -> bool:
            (listed,) = house.ran(("receive", "--list"))
            house.said["received"] = listed
            return len(listed) == len(studies) and all(row["state"] == "ready" for row in listed)

        wait_until(ready, "everything that was sent is ready")
    finally:
        service.send_signal(signal.SIGTERM)
        assert service.wait(timeout=30) == 0, lines


def _round(house: House) -> None:
    names = ("open", "close", "promote", "exported", "ingested", "opened_again")
    commands: list[tuple[object, ...]] = [
        ("round", "open"), ("round", "close", 1),
        ("promote", 1, "--approve", "--by", "alma", "--reason", "gate passed"), EXPORT, ("ingest",), ("round", "open"),
    ]  # fmt: skip
    house.said |= dict(zip(names, house.ran(*commands), strict=True))


def test_every_way_in_ends_in_the_project(house: House) -> None:
    """Asked for, moved and sent: each source's exams are admitted, and nothing clear is left in spool or inbox."""
    assert len(house.said["received"]) == len(SENT)
    (report,) = house.ran(("intake", "report"))
    assert {row["source"]: (row["series"], row["files"]) for row in report["rules"] if row["rule"] == "admitted"} == {
        "pacs": (len(WEB), SLICES * len(WEB)),
        "archive": (len(MOVED), SLICES * len(MOVED)),
        "router": (len(SENT), SLICES * len(SENT)),
    }
    assert report["totals"]["admitted"]["series"] == report["totals"]["series"] == EXAMS
    for folder in ("spool", "inbox"):
        assert list((house.project.vault_dir / folder).rglob("*.dcm")) == []


def test_a_second_look_asks_for_names_only(house: House) -> None:
    """After the export, an intake and a second round find nothing new: no pixels are asked for, nothing is moved."""
    assert {(row["verdict"], row["rule"]) for row in house.said["ingested"]} == {("duplicate", "known")}
    assert len(house.said["ingested"]) == len(WEB) + len(MOVED)
    asked = house.proxy.requests
    stored = max(n for n, line in enumerate(asked) if line.startswith("POST"))
    looked = next(n for n in range(stored, len(asked)) if "/dicom-web/series?" in asked[n])
    assert len(asked) - looked >= 2 and all("/dicom-web/series?" in line for line in asked[looked:])
    assert house.log.read_text(errors="replace").count("Incoming Move request") == len(MOVED)


def test_each_segmentation_lies_beside_its_originals(house: House, tmp_path: Path) -> None:
    """One SEG per annotated exam, in the patient's own study, under the originals' names; its voxels are the label."""
    project = house.project
    labels = {row["exam_id"]: row for row in project.ledger.rows("annotation") if row["state"] == "valid"}
    sent = house.said["exported"]["sent"]
    stored = house.segmentations()
    assert all(row["ok"] for row in sent) and {row["exam_id"] for row in sent} == set(stored) == set(labels)
    assert len(stored) >= 7
    for headers in house.exams:
        first = headers[0]
        exam = project.pseudonyms.exam_id(str(first.SeriesInstanceUID))
        if exam not in stored:
            continue
        content, dataset = stored[exam]
        for name in ("StudyInstanceUID", "PatientID", "FrameOfReferenceUID", "StudyDate"):
            assert dataset[name].value == first[name].value
        for name in ("PatientName", *OPTIONAL):
            assert (dataset[name].value or "") == (first.get(name) or "")
        (listed,) = dataset.ReferencedSeriesSequence
        assert listed.SeriesInstanceUID == first.SeriesInstanceUID
        instances = {header.SOPInstanceUID: header for header in headers}
        assert {item.ReferencedSOPInstanceUID for item in listed.ReferencedInstanceSequence} == set(instances)
        for item in dataset.PerFrameFunctionalGroupsSequence:
            (image,) = item.DerivationImageSequence[0].SourceImageSequence
            position = item.PlanePositionSequence[0].ImagePositionPatient
            assert list(position) == list(instances[image.ReferencedSOPInstanceUID].ImagePositionPatient)
        (study,) = house.orthanc.find("Study", StudyInstanceUID=str(first.StudyInstanceUID))
        kinds = [house.orthanc.get(f"series/{one}")["MainDicomTags"]["Modality"]
                 for one in house.orthanc.get(f"studies/{study}")["Series"]]  # fmt: skip
        assert sorted(kinds) == ["CT", "SEG"]
        path = tmp_path / f"{exam}.dcm"
        path.write_bytes(content)
        back = read_segmentation(path, geometry(project, exam), project.config.structures, uid=project.pseudonyms.uid)
        np.testing.assert_array_equal(back, read_volume(project.root / labels[exam]["path"]).array)


def test_the_validator_accepts_what_the_pacs_gives_back(house: House, tmp_path: Path) -> None:
    """dciodvfy finds no error in any SEG that it does not find in its patient's own images."""
    program = shutil.which("dciodvfy")
    if program is None:
        pytest.skip("dciodvfy is not installed (Debian: apt install dicom3tools)")

    def errors(content: bytes) -> set[str]:
        (tmp_path / "one.dcm").write_bytes(content)
        done = subprocess.run([program, "-new", tmp_path / "one.dcm"], capture_output=True, check=False, timeout=60)
        # It counts the bytes of a name where PS3.5 6.2 counts its characters.
        return {line for line in (done.stdout + done.stderr).decode().splitlines() if line.startswith("Error")}

    stored = house.segmentations()
    for headers in house.exams:
        exam = house.project.pseudonyms.exam_id(str(headers[0].SeriesInstanceUID))
        if exam in stored:
            assert errors(stored[exam][0]) <= errors(Path(headers[0].filename).read_bytes())


def test_what_somebody_deleted_is_sent_again_as_the_same_object(house: House) -> None:
    """A SEG that is gone from the PACS comes back under its UID; the others are not doubled."""
    before = {exam: str(dataset.SOPInstanceUID) for exam, (_, dataset) in house.segmentations().items()}
    house.orthanc.delete("series/" + house.orthanc.find("Series", Modality="SEG")[0])
    assert len(house.segmentations()) == len(before) - 1
    (answer,) = house.ran(EXPORT)
    assert len(answer["sent"]) == len(before)
    assert {exam: str(dataset.SOPInstanceUID) for exam, (_, dataset) in house.segmentations().items()} == before


def test_the_records_say_what_happened(house: House) -> None:
    """The chain holds, the champion is traced, and each export is on record in pseudonyms before and after it."""
    verified, traced = house.ran(("audit", "verify"), ("audit", "trace", "champion"))
    assert verified["ok"] and verified["broken"] == []
    assert traced["training"]["exams"] == len(traced["annotations"]) > 0
    assert traced["training"]["held_out_subjects_in_training"] == []
    events = [row for row in house.project.ledger.rows("audit_event") if row["kind"].startswith("export.")]
    exported = len(house.said["exported"]["sent"])
    events = events[: 2 * exported]  # other tests export again
    (account,) = house.project.ledger.rows("account")
    assert [row["kind"] for row in events] == ["export.sending", "export.sent"] * exported
    assert {(row["payload"]["by"], row["payload"]["reason"], row["payload"]["to"]) for row in events} == {
        (account["account_id"], "tumour board", "pacs")
    }


@pytest.mark.parametrize("against", ["planted", "vault"])
def test_nothing_clear_is_left_in_the_project(house: House, against: str) -> None:
    """After round, decision and export: databases of MLflow and Prefect, artefacts, git and DVC hold no identifier."""
    known = "vault:" if against == "vault" else house.phantom / "planted_identifiers.json"
    (report,) = house.ran(("deid", "check", house.project.root, "--against", known))
    assert report["ok"] and report["not_read"] == []
    assert report["identifiers"] > 3 * EXAMS, report["identifiers"]
    assert report["searched"]["git objects"] > 10 and report["searched"]["cells"] > 1000
    for name in (".redraft/mlflow.db", ".redraft/prefect-local/prefect.db", ".redraft/ledger.db", ".dvc/cache"):
        assert (house.project.root / name).exists()


def test_the_proof_can_fail_wherever_a_round_writes(house: House, tmp_path: Path) -> None:
    """A name in MLflow, in Prefect's database, in a cached volume and in a commit that is long gone: all are found."""
    root = tmp_path / "kidneys"
    shutil.copytree(house.project.root, root, symlinks=True)
    name = str(house.exams[2][0].PatientName)
    for database, table in (("mlflow.db", "experiment_tags"), ("prefect-local/prefect.db", "flow_run")):
        _plant(root / ".redraft" / database, table, name)
    cached = next(path for path in (root / ".dvc/cache/files").rglob("*") if path.is_file() and _is_gzip(path))
    cached.chmod(0o600)
    content = bytearray(gzip.decompress(cached.read_bytes()))
    content[148 : 148 + len(name.encode())] = name.encode()  # descrip of a NIfTI-1 header
    cached.write_bytes(gzip.compress(bytes(content)))
    git = ["git", "-C", str(root), "-c", "user.name=a", "-c", "user.email=a@localhost"]
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", f"for {name}"], check=True)
    subprocess.run([*git, "reset", "-q", "--soft", "HEAD^"], check=True)
    listed = tmp_path / "list.txt"
    listed.write_text(name)
    ((code, out),) = house.redraft(("deid", "check", root, "--against", listed, "--json"))
    places = {row["place"].split(" ")[0] for row in json.loads(out)["found"]}
    assert code == 1
    assert {".redraft/mlflow.db", ".redraft/prefect-local/prefect.db", str(cached.relative_to(root)), ".git"} <= places


def _plant(database: Path, table: str, text: str) -> None:
    with closing(sqlite3.connect(database)) as base, base:
        column = next(row[1] for row in base.execute(f"PRAGMA table_info({table})") if row[1] in ("value", "name"))
        if not base.execute(f"UPDATE {table} SET {column} = ?", (text,)).rowcount:
            base.execute(f"INSERT INTO {table} (key, value, experiment_id) VALUES ('note', ?, 1)", (text,))


def _is_gzip(path: Path) -> bool:
    return path.read_bytes()[:2] == b"\x1f\x8b"


def test_names_in_real_headers_stay_out(shared_data: Path, tmp_path: Path, house: House) -> None:
    """Brain MR whose headers hold invented persons: taken in, and none of names, numbers and UIDs stands anywhere."""
    images = shared_data / "brain_mr_dicom"
    identifiers = set()
    for path in images.rglob("*.dcm"):
        header = read(path.read_bytes())
        identifiers |= {str(e.value) for e in header if e.VR in ("PN", "UI")}
        identifiers |= {str(header.get(name, "")) for name in ("PatientID", "AccessionNumber")}
    listed = tmp_path / "list.txt"
    listed.write_text("\n".join(sorted(one for one in identifiers if one and not one.startswith("1.2.840.10008."))))
    root = tmp_path / "brains"
    settings = {"modalities: [MR]": "modalities: [MR]\n  accept_secondary: true"}
    create_project(root, "hippocampus-mr", datetime.now(UTC), demo_keys=True, settings=settings).ledger.engine.dispose()
    receipts, *reports = house.ran(
        ("ingest", images, "--project", root),
        ("deid", "check", root, "--against", listed, "--project", root),
        ("deid", "check", root, "--against", "vault:", "--project", root),
    )
    assert sum(row["verdict"] == "admitted" for row in receipts) == 4
    assert all(report["ok"] and report["identifiers"] > 20 for report in reports)
