"""Drafts in a real PACS, corrected there by a tool and picked up: the same voxels, nothing clear in the project."""

from __future__ import annotations

import io
import json
import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from redraft import rounds
from redraft.create import create_project
from redraft.digest import sha256_file
from redraft.errors import LabelError
from redraft.gateway import source_section
from redraft.ledger import AssignmentState, move_assignment
from redraft.phantom.write import write_phantom
from redraft.project import Project
from redraft.segmentation.export import geometry
from redraft.segmentation.structures import to_code
from redraft.signing import token, verify_result
from redraft.sources.dicomweb.returns import Returns
from redraft.sources.protocol import SourceContext
from redraft.volumes import read_volume, write_volume
from tasks.dispatch.backends import Returned
from tasks.dispatch.contract import Task, TaskStructure
from tasks.dispatch.dicomweb import DicomWebBackend
from tasks.dispatch.open_backend import backend_for
from tasks.dispatch.packages import Tools, make_package
from tasks.ingest.admit import take_in
from tests.servers.orthanc import Orthanc

NOW = datetime(2026, 3, 2, 8, 30, tzinfo=UTC)
SHAPE = (34, 28, 10)
READER = "Abendroth^Wilhelmina"  # writes her name into what she stores
ASSISTED, SCRATCH, SECOND = "a" * 20, "b" * 20, "c" * 20


@dataclass
class House:
    """A project whose readers work in a PACS, and the PACS."""

    project: Project
    orthanc: Orthanc
    phantom: Path
    exams: list[str]
    failed: dict[str, LabelError] = field(default_factory=dict)

    @property
    def backend(self) -> DicomWebBackend:
        backend = backend_for(self.project)
        assert isinstance(backend, DicomWebBackend)
        return backend

    def collect(self, *names: str) -> dict[str, Returned]:
        """What comes back of these assignments; what could not be is in `failed`."""
        self.failed = {}
        names = names or (ASSISTED, SCRATCH)
        return {item.assignment_id: item for item in self.backend.collect(names, self.failed.__setitem__)}

    def rules(self) -> dict[str, str]:
        return {name: error.rule for name, error in self.failed.items()}

    def draft(self, name: str = ASSISTED) -> np.ndarray:
        return read_volume(self.project.work / name / "draft.nii.gz").array

    def code(self, name: str) -> str:
        return self.project.pseudonyms.work_code(name)

    def segs(self) -> list[Dataset]:
        found = []
        for series in self.orthanc.find("Series", Modality="SEG"):
            for instance in self.orthanc.get(f"series/{series}")["Instances"]:
                found.append(read(self.orthanc.rest("GET", f"instances/{instance}/file").content))
        return found

    def images(self, exam: str) -> list[Dataset]:
        """The original images of an exam, by slice."""
        headers = [pydicom.dcmread(path) for path in self.phantom.glob("images/**/*.dcm")]
        own = [h for h in headers if self.project.pseudonyms.exam_id(str(h.SeriesInstanceUID)) == exam]
        return sorted(own, key=lambda h: float(h.ImagePositionPatient[2]))

    def seg(self, labels: np.ndarray, exam: str, **options: Any) -> Dataset:
        """A segmentation as a tool makes it from the original images: its own UIDs, names and times."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = hd.seg.Segmentation(**self._arguments(labels, exam, options))
        dataset = Dataset(made)
        dataset.file_meta = made.file_meta
        for name, value in options.get("set", {}).items():
            setattr(dataset, name, value)
        return dataset

    def _arguments(self, labels: np.ndarray, exam: str, options: dict[str, Any]) -> dict[str, Any]:
        tracking = options.get("tracking") or {}
        segments = []
        for number, s in enumerate(self.project.config.structures, 1):
            assert s.code is not None
            one = hd.seg.SegmentDescription(
                number, options.get("names", {}).get(s.name, s.name), to_code(s.code.category),
                options.get("codes", {}).get(s.name, to_code(s.code.type)), "MANUAL",
                tracking_uid=tracking.get(s.name, hd.UID()), tracking_id=s.name,
                anatomic_regions=[to_code(s.code.region)] if s.code.region else None,
            )  # fmt: skip
            segments.append(one)
        numbers = np.zeros(labels.shape, np.uint8)
        for number, s in enumerate(self.project.config.structures, 1):
            numbers[labels == s.value] = number
        return {
            "source_images": self.images(exam), "pixel_array": np.ascontiguousarray(numbers.transpose(2, 1, 0)),
            "segmentation_type": "BINARY", "segment_descriptions": segments, "series_instance_uid": hd.UID(),
            "series_number": 99, "sop_instance_uid": hd.UID(), "instance_number": 1, "manufacturer": "A tool",
            "manufacturer_model_name": "A tool", "software_versions": "1", "device_serial_number": "1",
            "content_creator_name": READER, "series_description": options.get("description"),
        }  # fmt: skip

    def store(self, dataset: Dataset) -> str:
        """Put an object into the PACS; Orthanc's id."""
        buffer = io.BytesIO()
        dataset.save_as(buffer, enforce_file_format=True)
        return str(self.orthanc.rest("POST", "instances", data=buffer.getvalue()).json()["ID"])

    def correct(self, labels: np.ndarray, **options: Any) -> str:
        """A correction of the stored draft: made from it, as tools say that (its segments' tracking UIDs)."""
        (draft,) = [one for one in self.segs() if self.code(ASSISTED) in str(one.get("SeriesDescription"))]
        tracking = {str(s.SegmentLabel): s.TrackingUID for s in draft.SegmentSequence}
        return self.store(self.seg(labels, self.exams[0], **{"tracking": tracking, **options}))


def read(content: bytes) -> Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pydicom.dcmread(io.BytesIO(content))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two exams taken in from DICOM, a draft of each, and three assignments; folders of the project and the phantom."""
    folder = tmp_path_factory.mktemp("pacs")
    write_phantom(folder / "phantom", 2, 3, shape=SHAPE, spacing=(10.2, 10.2, 18.0))
    project = create_project(folder / "kidneys", "kidney-ct", NOW, demo_keys=True)
    take_in(project, [folder / "phantom" / "images"], NOW, "test")
    rounds.begin(project, NOW, "test", lambda champion: {})
    exams = sorted(row["exam_id"] for row in project.ledger.rows("exam"))
    with project.ledger.tx("test", NOW) as tx:
        tx.insert("model", {
            "model_digest": "d" * 64, "round": 1, "mlflow_run_id": "r", "mlflow_model_id": "m", "name": "kidney",
            "version": "1", "package_uri": "u", "manifest_sha256": "v", "training_digest": "w", "state": "READY",
            "software": {}, "seeds": [1], "created_at": NOW,
        })  # fmt: skip
        if tx.one("reader", reader_id="reader-1") is None:
            tx.insert("reader", {"reader_id": "reader-1", "role": "radiologist", "simulated": False, "added_at": NOW})
        for exam in exams:
            image = read_volume(project.image(exam))
            labels = np.zeros(image.shape, np.uint8)
            labels[6:14, 8:15, 2:8], labels[9:12, 10:13, 4:6] = 1, 2
            path = project.root / f"data/drafts/{exam}.nii.gz"
            write_volume(path, image.like(labels))
            tx.insert("draft", {
                "draft_id": f"draft-{exam}", "exam_id": exam, "model_digest": "d" * 64, "scores": {},
                "path": path.relative_to(project.root).as_posix(), "sha256": sha256_file(path),
            })  # fmt: skip
        for name, exam, mode in ((ASSISTED, exams[0], "assisted"), (SCRATCH, exams[1], "from_scratch"),
                                 (SECOND, exams[0], "assisted")):  # fmt: skip
            tx.insert("assignment", {
                "assignment_id": name, "round": 1, "exam_id": exam, "reader_id": "reader-1", "purpose": "training",
                "mode": mode, "mode_probability": 0.5, "draft_id": f"draft-{exam}" if mode == "assisted" else None,
                "backend": "dicomweb", "state": "DISPATCHED", "expected_minutes": 5.0, "dispatched_at": NOW,
                "due_at": NOW, "package_sha256": "e" * 64, "attempt": 1,
            })  # fmt: skip
    project.ledger.engine.dispose()
    return project.root, folder / "phantom"


@pytest.fixture
def house(
    made: tuple[Path, Path], orthanc: Orthanc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[House]:
    """The project with its packages made, and the PACS with the original images and nothing else."""
    root, phantom = made
    orthanc.clear()
    orthanc.put(sorted((phantom / "images").rglob("*.dcm")))
    monkeypatch.setenv("PACS_USER", orthanc.user)
    monkeypatch.setenv("PACS_PASSWORD", orthanc.password)
    for folder in (root, Project.open(root).vault_dir):
        shutil.copytree(folder, tmp_path / folder.name)
    path = tmp_path / "kidneys" / "project.yaml"
    source = (
        f"ingest:\n  sources:\n    - {{kind: dicomweb, name: pacs, url: '{orthanc.dicomweb_url}', "
        "basic: {user: {env: PACS_USER}, password: {env: PACS_PASSWORD}}, retry: {attempts: 2, wait_seconds: 0.05}}\n"
    )
    text = path.read_text().replace("ingest:\n", source, 1)
    path.write_text(text.replace("backend: folder", "backend: dicomweb\n  pacs: pacs"))
    project = Project.open(tmp_path / "kidneys")
    for row in project.ledger.rows("assignment"):
        _package(project, row)
    yield House(project, orthanc, phantom, sorted(row["exam_id"] for row in project.ledger.rows("exam")))
    project.ledger.engine.dispose()


def _package(project: Project, row: dict[str, Any]) -> None:
    exam = project.ledger.one("exam", exam_id=row["exam_id"])
    draft = project.ledger.one("draft", draft_id=row["draft_id"]) if row["draft_id"] else None
    assert exam is not None
    structures = project.config.structures
    mode: Literal["assisted", "from_scratch"] = row["mode"]
    task = Task(
        assignment_id=row["assignment_id"], exam_id=row["exam_id"], round=1, purpose="training", mode=mode,
        reader_id="reader-1", image_sha256=exam["image_sha256"], draft_sha256=draft["sha256"] if draft else None,
        structures=tuple(TaskStructure(name=s.name, value=s.value, kind=s.kind) for s in structures),
        token=token(project.checked_keys, row["assignment_id"], "reader-1", 1),
    )  # fmt: skip
    tools = Tools(structures, work_code=project.pseudonyms.work_code(row["assignment_id"]))
    make_package(
        project.work, task, project.root / exam["image_path"], project.root / draft["path"] if draft else None, tools
    )


def test_a_corrected_draft_comes_back_voxel_for_voxel(house: House) -> None:
    """Handed out, the draft lies in the patient's study; corrected there, the label is the tool's, without minutes."""
    house.backend.hand_out([ASSISTED, SCRATCH], house.failed.__setitem__)
    (stored,) = house.segs()
    first = house.images(house.exams[0])[0]
    assert (stored.PatientID, stored.StudyInstanceUID) == (first.PatientID, first.StudyInstanceUID)
    assert stored.SeriesDescription == f"redraft draft {house.code(ASSISTED)}"
    assert ASSISTED not in str(stored) and house.collect() == {} and house.failed == {}
    corrected = house.draft().copy()
    corrected[7, 9:12, 3:7], corrected[20:22, 20:22, 1:3] = 0, 2
    house.correct(corrected)
    (item,) = house.collect().values()
    assert house.failed == {} and item.assignment_id == ASSISTED
    np.testing.assert_array_equal(read_volume(item.label).array, corrected)
    result = item.result
    assert (result.verdict, result.origin, result.minutes) == ("correct", "imported", {})
    payload = result.model_dump(mode="json")
    assert verify_result(house.project.checked_keys, payload, sha256_file(item.label))
    assert not verify_result(house.project.checked_keys, payload, "0" * 64)


def test_drawn_from_scratch_it_is_told_by_its_work_code(house: House) -> None:
    """Nothing is stored for such an exam; a series that is called by the code, as people type it, is its work."""
    house.backend.hand_out([SCRATCH], house.failed.__setitem__)
    assert house.segs() == []
    drawn = np.zeros(SHAPE, np.uint8)
    drawn[3:9, 4:9, 2:5] = 1
    typed = f"Redraft {house.code(SCRATCH).lower().replace('-', ' ')}"
    house.store(house.seg(drawn, house.exams[1], description=typed))
    (item,) = house.collect(SCRATCH).values()
    assert item.result.verdict == "scratch"
    np.testing.assert_array_equal(read_volume(item.label).array, drawn)
    assert house.code(SCRATCH) in (house.project.work / SCRATCH / "README.txt").read_text()


def test_stored_as_it_was_the_draft_is_accepted(house: House) -> None:
    """A tool's own copy of the draft without a change says that it is right."""
    house.collect()
    house.correct(house.draft())
    assert house.collect()[ASSISTED].result.verdict == "accept"


def test_nothing_clear_gets_into_the_project(house: House) -> None:
    """Neither the patients' identifiers nor the reader's name, nor a UID of the PACS, in any file or event."""
    house.collect()
    corrected = house.draft().copy()
    corrected[7, 9, 3] = 0
    house.correct(corrected, description=f"redraft {house.code(ASSISTED)} {READER}")
    assert ASSISTED in house.collect()
    clear = set(json.loads((house.phantom / "planted_identifiers.json").read_text())) | {READER, "Abendroth"}
    for dataset in house.segs():
        clear |= {str(dataset[name].value) for name in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")}
    texts = {"events": json.dumps([row["payload"] for row in house.project.ledger.rows("audit_event")])}
    for path in house.project.root.rglob("*"):
        if path.is_file():
            texts[str(path)] = path.read_bytes().decode("latin-1")
    assert [(name, text) for text in clear for name, content in texts.items() if text in content] == []
    assert [path.name for path in house.project.vault_dir.glob("return-*")] == []
    kinds = [row["kind"] for row in house.project.ledger.rows("audit_event")]
    assert kinds.count("export.sent") == 1 and kinds.count("label.fetched") == 1


def test_handed_out_again_the_draft_is_stored_once(house: House) -> None:
    """A second hand-out stores nothing; one that somebody deleted is named and comes back as the same object."""
    for _ in range(2):
        house.backend.hand_out([ASSISTED], house.failed.__setitem__)
    (before,) = house.segs()
    events = [row for row in house.project.ledger.rows("audit_event") if row["kind"] == "export.sent"]
    assert len(events) == 1 and events[0]["payload"]["by"] == "policy"
    house.orthanc.delete("series/" + house.orthanc.find("Series", Modality="SEG")[0])
    assert house.collect() == {} and house.rules() == {ASSISTED: "draft_gone"}
    (after,) = house.segs()
    assert after.SOPInstanceUID == before.SOPInstanceUID
    assert house.collect() == {} and house.failed == {}


def test_the_last_of_several_counts(house: House) -> None:
    """Saved twice, the later save is the work; by pseudonym it is on record which it was."""
    house.collect()
    one, two = house.draft().copy(), house.draft().copy()
    one[7, 9, 3], two[7, 10, 3] = 0, 0
    house.correct(two, set={"ContentDate": "20260303", "ContentTime": "101500"})
    house.correct(one, set={"ContentDate": "20260303", "ContentTime": "101459.9"})
    (item,) = house.collect().values()
    np.testing.assert_array_equal(read_volume(item.label).array, two)
    picked = json.loads((house.project.work / ASSISTED / "picked_up.json").read_text())
    assert picked["superseded"] == 1 and picked["sop_instance"].startswith("2.25.")


@pytest.mark.parametrize("same", [True, False])
def test_several_of_one_time(house: House, same: bool) -> None:
    """The same voxels twice are one work; other voxels are several labels."""
    house.collect()
    one, two = house.draft().copy(), house.draft().copy()
    one[7, 9, 3] = 0
    two[7, 9 if same else 10, 3] = 0
    for labels in (one, two):
        house.correct(labels, set={"ContentDate": "20260303", "ContentTime": "101500"})
    items = house.collect()
    assert (set(items), house.rules()) == (({ASSISTED}, {}) if same else (set(), {ASSISTED: "several_labels"}))


def test_refused_work_waits_for_another_segmentation(house: House) -> None:
    """What was sent back is not picked up again, however often; the next object is."""
    house.collect()
    first = house.draft().copy()
    first[7, 9, 3] = 0
    house.correct(first)
    assert ASSISTED in house.collect()
    house.backend.send_back(ASSISTED, ["kidney is empty."])
    assert house.collect() == house.collect() == {} and house.failed == {}
    second = house.draft().copy()
    second[8, 9, 3] = 0
    house.correct(second)
    np.testing.assert_array_equal(read_volume(house.collect()[ASSISTED].label).array, second)


def test_a_change_after_the_work_was_taken_in_is_named(house: House) -> None:
    """Accepted work stays as it is; that the PACS holds another version is said, by rule."""
    house.collect()
    labels = house.draft().copy()
    labels[7, 9, 3] = 0
    house.correct(labels)
    label = house.collect()[ASSISTED].label
    kept = label.read_bytes()
    with house.project.ledger.tx("test", NOW) as tx:
        for state in (AssignmentState.RETURNED, AssignmentState.ACCEPTED):
            move_assignment(tx, ASSISTED, state)
    assert house.collect(SCRATCH) == {} and house.failed == {}
    labels[8, 9, 3] = 0
    house.correct(labels)
    assert house.collect(SCRATCH) == {} and house.rules() == {ASSISTED: "revised_later"}
    assert label.read_bytes() == kept


def _frame(house: House) -> None:
    house.correct(house.draft(), set={"FrameOfReferenceUID": hd.UID()})


def _unknown_segment(house: House) -> None:
    spleen = pydicom.sr.coding.Code("78961009", "SCT", "Spleen")
    house.correct(house.draft(), names={"kidney": "spleen"}, codes={"kidney": spleen})


def _other_series(house: House) -> None:
    made = house.seg(house.draft(), house.exams[0], description=f"redraft {house.code(ASSISTED)}")
    made.ReferencedSeriesSequence[0].SeriesInstanceUID = hd.UID()
    house.store(made)


def _other_exam(house: House) -> None:
    house.store(house.seg(house.draft(), house.exams[1], description=f"redraft {house.code(ASSISTED)}"))


def _two_assignments(house: House) -> None:
    house.backend.hand_out([SECOND], house.failed.__setitem__)
    house.correct(house.draft(), description=f"redraft {house.code(SECOND)}")


def _cut_off(house: House) -> None:
    (draft,) = house.segs()
    tracking = {str(s.SegmentLabel): s.TrackingUID for s in draft.SegmentSequence}
    made = house.seg(house.draft(), house.exams[0], tracking=tracking)
    made.PixelData = made.PixelData[:64]
    house.store(made)


@pytest.mark.parametrize(
    ("act", "rule"),
    [
        (_frame, "frame_of_reference"), (_unknown_segment, "unknown_segment"), (_other_series, "other_series"),
        (_other_exam, "other_exam"), (_two_assignments, "ambiguous_assignment"), (_cut_off, "truncated"),
    ],
)  # fmt: skip
def test_what_cannot_be_this_work_is_named_and_left(house: House, act: Callable[[House], None], rule: str) -> None:
    """Each by its rule, for its assignment, without a clear UID in the words; nothing is put into the package."""
    house.collect()
    act(house)
    before = len(house.segs())
    names = (ASSISTED, SECOND, SCRATCH) if act is _two_assignments else (ASSISTED, SCRATCH)
    assert house.collect(*names) == {}
    assert house.rules() == dict.fromkeys([ASSISTED, SECOND] if act is _two_assignments else [ASSISTED], rule)
    assert len(house.segs()) == before and not (house.project.work / ASSISTED / "result.json").exists()
    told = " ".join(str(error) for error in house.failed.values())
    for dataset in house.segs():
        assert str(dataset.SOPInstanceUID) not in told and str(dataset.StudyInstanceUID) not in told
    assert READER not in told and ASSISTED in told


def test_segmentations_of_other_people_are_left_alone(house: House) -> None:
    """A clinical segmentation in the study is nobody's work; one with a mistyped code is named as a stranger."""
    house.collect()
    house.store(house.seg(house.draft(), house.exams[0], description="Nierenvolumetrie"))
    backend = house.backend
    assert list(backend.collect([ASSISTED], house.failed.__setitem__)) == [] and house.failed == {}
    assert backend.strangers({ASSISTED, SCRATCH, SECOND}) == []
    house.store(house.seg(house.draft(), house.exams[0], description="redraft 0000-0000"))
    assert list(backend.collect([ASSISTED], house.failed.__setitem__)) == [] and house.failed == {}
    (stranger,) = backend.strangers({ASSISTED, SCRATCH, SECOND})
    assert stranger.startswith("pacs-2.25.")


def test_a_draft_that_could_not_be_stored_is_named_and_stored_later(house: House) -> None:
    """The PACS is down while work goes out: its assignment is named, and the next collection brings the draft."""
    path = house.project.root / "project.yaml"
    text = path.read_text()
    path.write_text(text.replace(house.orthanc.dicomweb_url, "http://127.0.0.1:9/dicom-web"))
    silent = House(Project.open(house.project.root), house.orthanc, house.phantom, house.exams)
    silent.backend.hand_out([ASSISTED, SCRATCH], silent.failed.__setitem__)
    assert silent.rules() == {ASSISTED: "not_stored"} and house.segs() == []
    path.write_text(text)
    assert house.collect() == {} and house.failed == {} and len(house.segs()) == 1


def test_what_vanishes_or_swells_on_the_way_is_refused(house: House, tmp_path: Path) -> None:
    """An object that the server no longer has, and one that is larger than its image allows."""
    house.collect()
    (draft,) = house.segs()
    section = source_section(house.project, "pacs")
    server = Returns(section, SourceContext.of(house.project))
    place = (str(draft.StudyInstanceUID), str(draft.SeriesInstanceUID))
    with pytest.raises(LabelError) as gone:
        server.retrieve(*place, "1.2.3", tmp_path / "x.dcm", 1 << 20)
    with pytest.raises(LabelError) as large:
        server.retrieve(*place, str(draft.SOPInstanceUID), tmp_path / "x.dcm", 1000)
    assert (gone.value.rule, large.value.rule) == ("deleted", "too_large")
    assert server.segmentations(place[0]) == [place[1]] and server.segmentations("1.2.3") == []


def test_a_silent_pacs_stops_nobody(house: House) -> None:
    """Work finished in its package comes back; the rest is named and waits."""
    house.collect()
    folder = house.project.work / SCRATCH
    image = read_volume(folder / "image.nii.gz")
    write_volume(folder / "label.nii.gz", image.like(np.ones(image.shape, np.uint8)))
    content = json.loads((folder / "result.template.json").read_text())
    (folder / "result.json").write_text(json.dumps(content | {"minutes": {"exam": {"active": 3}}}))
    path = house.project.root / "project.yaml"
    path.write_text(path.read_text().replace(house.orthanc.dicomweb_url, "http://127.0.0.1:9/dicom-web"))
    silent = House(Project.open(house.project.root), house.orthanc, house.phantom, house.exams)
    assert set(silent.collect()) == {SCRATCH}
    assert silent.rules() == {ASSISTED: "service_unreachable"}
    assert geometry(house.project, house.exams[0]).shape == SHAPE
