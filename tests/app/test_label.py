"""`redraft label export`: files under pseudonyms with their digests, and the audited way into a PACS."""

from __future__ import annotations

import json
import shutil
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from redraft.create import create_project
from redraft.digest import sha256_file
from redraft.errors import RedraftError, ServiceError
from redraft.gateway import _open, _Servers
from redraft.ledger import AssignmentState, move_assignment
from redraft.originals import compare, resolve
from redraft.phantom.write import draw_exam, write_phantom
from redraft.project import Project
from redraft.segmentation.export import geometry
from redraft.segmentation.read import read_segmentation
from redraft.volumes import read_volume, write_volume
from tests.servers.orthanc import Orthanc, running_orthanc

NOW = datetime(2026, 3, 2, 8, 30, tzinfo=UTC)
SHAPE, SPACING = (48, 40, 16), (7.2, 7.2, 12.0)
EXAMS = 3


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantom")
    write_phantom(folder, EXAMS, 3, shape=SHAPE, spacing=SPACING)
    return folder


@pytest.fixture(scope="module")
def made(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three exams taken in from DICOM; the truth of two stands as annotations, one drawn and one corrected."""
    from redraft import rounds
    from tasks.ingest.admit import take_in

    folder = tmp_path_factory.mktemp("made")
    project = create_project(folder / "kidneys", "kidney-ct", NOW, demo_keys=True)
    take_in(project, [phantom / "images"], NOW, "test")
    rounds.begin(project, NOW, "test", lambda champion: {})
    exams = truths(project, phantom)
    with project.ledger.tx("test", NOW) as tx:
        model = {
            "model_digest": "d" * 64, "round": 1, "mlflow_run_id": "r", "mlflow_model_id": "m", "name": "kidney",
            "version": "1", "package_uri": "u", "manifest_sha256": "v", "training_digest": "w", "state": "READY",
            "software": {}, "seeds": [1], "created_at": NOW,
        }  # fmt: skip
        tx.insert("model", model)
        for n, (exam, labels) in enumerate(sorted(exams.items())[:2]):
            _annotate(project, tx, exam, labels, corrected=n == 1)
    project.ledger.engine.dispose()
    return folder


@pytest.fixture
def project(made: Path, tmp_path: Path) -> Project:
    """A copy, with its vault."""
    shutil.copytree(made, tmp_path / "here", symlinks=True)
    return Project.open(tmp_path / "here" / "kidneys")


def truths(project: Project, phantom: Path) -> dict[str, np.ndarray]:
    """Exam id to the drawn labels."""
    found = {}
    for folder in sorted({path.parent for path in (phantom / "images").rglob("*.dcm")}):
        header = pydicom.dcmread(next(folder.glob("*.dcm")), stop_before_pixels=True)
        exam = project.pseudonyms.exam_id(header.SeriesInstanceUID)
        found[exam] = draw_exam(3, int(header.StudyID), SHAPE, SPACING).labels
    return found


def _annotate(project: Project, tx, exam: str, labels: np.ndarray, *, corrected: bool) -> None:
    path = f"data/labels/{exam[:2]}/{exam}/note.nii.gz"
    write_volume(project.root / path, read_volume(project.image(exam)).like(labels))
    sha256 = sha256_file(project.root / path)
    if corrected:
        draft = {"draft_id": "draft", "exam_id": exam, "model_digest": "d" * 64, "path": path, "sha256": sha256,
                 "scores": {}}  # fmt: skip
        tx.insert("draft", draft)
    work = {
        "assignment_id": f"work-{exam}", "round": 1, "exam_id": exam, "reader_id": "reader-1", "purpose": "training",
        "mode": "assisted" if corrected else "from_scratch", "mode_probability": 1.0,
        "draft_id": "draft" if corrected else None, "backend": "folder", "state": AssignmentState.DISPATCHED,
        "expected_minutes": 20.0, "dispatched_at": NOW, "due_at": NOW, "package_sha256": "p", "attempt": 1,
    }  # fmt: skip
    tx.insert("assignment", work)
    for state in (AssignmentState.RETURNED, AssignmentState.ACCEPTED):
        move_assignment(tx, f"work-{exam}", state)
    note = {
        "annotation_id": f"note-{exam}", "assignment_id": f"work-{exam}", "exam_id": exam, "reader_id": "reader-1",
        "revision": 1, "verdict": "correct" if corrected else "scratch", "reason_code": None, "remark_present": False,
        "path": path, "sha256": sha256, "draft_id": "draft" if corrected else None, "voxels_changed": None,
        "origin": "typed", "simulated": False, "state": "valid", "received_at": NOW,
    }  # fmt: skip
    tx.insert("annotation", note)


@pytest.mark.parametrize("kind", ["seg", "rtstruct", "nifti", "nrrd"])
def test_every_format_holds_the_annotations(kind: str, project: Project, phantom: Path, redraft, tmp_path) -> None:
    """One file per annotated exam, named by its pseudonym; a manifest with digests; the labels come back."""
    answer = redraft("label", "export", "--format", kind, "--project", project.root, "--out", tmp_path / "a", "--json")
    assert answer.code == 0, answer.err
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    exams = truths(project, phantom)
    assert [row["exam_id"] for row in manifest["exported"]] == sorted(exams)[:2] and not manifest["left_out"]
    assert json.loads(answer.out)["exported"] == manifest["exported"]
    for row, method in zip(manifest["exported"], ("MANUAL", "SEMIAUTOMATIC"), strict=True):
        path = tmp_path / "a" / row["file"]
        assert row["sha256"] == sha256_file(path) and row["method"] == method
        labels = read_segmentation(path, geometry(project, row["exam_id"]), project.config.structures)
        np.testing.assert_array_equal(labels, exams[row["exam_id"]])
        assert row["voxels"] == {"kidney": int((labels == 1).sum()), "kidney_tumor": int((labels == 2).sum())}
        if kind == "nifti":
            assert row["sha256"] == row["source_sha256"]
    planted = json.loads((phantom / "planted_identifiers.json").read_text())
    for path in (tmp_path / "a").iterdir():
        content = path.read_bytes()
        assert not [text for text in planted if text.encode() in content or text in path.name]
    again = redraft("label", "export", "--format", kind, "--project", project.root, "--out", tmp_path / "b")
    assert again.code == 0
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_one_exam_and_one_round_can_be_chosen(project: Project, phantom: Path, redraft, tmp_path: Path) -> None:
    """What is not there is said, and nothing is written."""
    exam = sorted(truths(project, phantom))[1]
    common = ("label", "export", "--format", "nrrd", "--project", project.root, "--out", tmp_path / "a")
    assert redraft(*common, "--exam", exam, "--round", 1).code == 0
    assert {path.name for path in (tmp_path / "a").iterdir()} == {f"{exam}.seg.nrrd", "manifest.json"}
    for wrong, code in ((("--exam", "nobody"), 2), (("--round", 2), 1), (("--what", "drafts"), 1)):
        answer = redraft(*common[:-1], tmp_path / "b", *wrong)
        assert answer.code == code and answer.err.startswith("error ["), answer.err
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    "options",
    [
        (), ("--out", "a", "--to", "pacs"), ("--to", "pacs", "--format", "nrrd"), ("--out", "a", "--by", "qa"),
        ("--to", "pacs", "--by", "qa"), ("--to", "pacs", "--reason", "x"),
    ],
)  # fmt: skip
def test_wrong_use_is_told(options: tuple[str, ...], project: Project, redraft) -> None:
    """Exit code 2, and what to give instead."""
    answer = redraft("label", "export", "--format", "seg", "--project", project.root, *options)
    assert answer.code in (1, 2) and "→" in answer.err


def test_a_label_that_was_altered_is_left_out(project: Project, phantom: Path, redraft, tmp_path: Path) -> None:
    """It is named with its rule, the others are written, and the command fails."""
    exam = sorted(truths(project, phantom))[0]
    path = project.root / f"data/labels/{exam[:2]}/{exam}/note.nii.gz"
    labels = read_volume(path)
    labels.array[0, 0, 0] = 2
    write_volume(path, labels)
    answer = redraft("label", "export", "--format", "seg", "--project", project.root, "--out", tmp_path / "a", "--json")
    assert answer.code == 1
    told = json.loads(answer.out)
    assert [row["exam_id"] for row in told["left_out"]] == [exam] and len(told["exported"]) == 1


@pytest.fixture
def with_pacs(project: Project, phantom: Path, orthanc: Orthanc, monkeypatch: pytest.MonkeyPatch, who: Any) -> Project:
    """The project, knowing a real DICOMweb server that holds the original images, and qa, who may send there."""
    monkeypatch.setenv("REDRAFT_PASSWORD_FILE", str(who(project.root, "ops", login="qa")[-1]))
    orthanc.clear()
    orthanc.put(sorted((phantom / "images").rglob("*.dcm")))
    monkeypatch.setenv("PACS_USER", orthanc.user)
    monkeypatch.setenv("PACS_PASSWORD", orthanc.password)
    source = (
        f"ingest:\n  sources:\n    - {{kind: dicomweb, name: pacs, url: '{orthanc.dicomweb_url}', "
        "basic: {user: {env: PACS_USER}, password: {env: PACS_PASSWORD}}}\n"
    )
    path = project.root / "project.yaml"
    path.write_text(path.read_text().replace("ingest:\n", source, 1))
    return Project.open(project.root)


def events(project: Project) -> list[dict]:
    return [row for row in project.ledger.rows("audit_event") if row["kind"].startswith("export.")]


@pytest.mark.parametrize("place", ["folder", "server"])
def test_the_gateway_stores_under_the_original_names(
    place: str, with_pacs: Project, phantom: Path, orthanc: Orthanc, redraft, tmp_path: Path
) -> None:
    """Orthanc lists the SEG in the patient's own study; it names the very images; the ledger knows, in pseudonyms."""
    images = phantom / "images"
    if place == "server":
        images.rename(phantom / "gone")
    try:
        answer = redraft(
            "label", "export", "--format", "seg", "--project", with_pacs.root, "--to", "pacs", "--by", "qa",
            "--reason", "tumour board", "--json",
        )  # fmt: skip
    finally:
        if place == "server":
            (phantom / "gone").rename(images)
    assert answer.code == 0, answer.out + answer.err
    sent = json.loads(answer.out)["sent"]
    stored = orthanc.find("Series", Modality="SEG")
    assert len(sent) == len(stored) == 2 and all(row["ok"] for row in sent)
    exams = truths(with_pacs, phantom)
    for number, one in enumerate(stored):
        (instance,) = orthanc.get(f"series/{one}")["Instances"]
        path = tmp_path / f"{number}.dcm"
        path.write_bytes(orthanc.rest("GET", f"instances/{instance}/file").content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(path)
        originals = [pydicom.dcmread(p, stop_before_pixels=True) for p in images.rglob("*.dcm")]
        own = {d.SOPInstanceUID: d for d in originals if d.StudyInstanceUID == dataset.StudyInstanceUID}
        first = next(iter(own.values()))
        assert (dataset.PatientID, dataset.PatientName) == (first.PatientID, first.PatientName)
        assert dataset.FrameOfReferenceUID == first.FrameOfReferenceUID and "PatientIdentityRemoved" not in dataset
        listed = dataset.ReferencedSeriesSequence[0]
        assert listed.SeriesInstanceUID == first.SeriesInstanceUID
        assert {i.ReferencedSOPInstanceUID for i in listed.ReferencedInstanceSequence} == set(own)
        for item in dataset.PerFrameFunctionalGroupsSequence:
            (image,) = item.DerivationImageSequence[0].SourceImageSequence
            position = item.PlanePositionSequence[0].ImagePositionPatient
            assert list(position) == list(own[image.ReferencedSOPInstanceUID].ImagePositionPatient)
        exam = with_pacs.pseudonyms.exam_id(first.SeriesInstanceUID)
        back = read_segmentation(
            path, geometry(with_pacs, exam), with_pacs.config.structures, uid=with_pacs.pseudonyms.uid
        )
        np.testing.assert_array_equal(back, exams[exam])
        assert with_pacs.pseudonyms.uid(dataset.SOPInstanceUID) in {row["sop_instance"] for row in sent}
    kinds = [row["kind"] for row in events(with_pacs)]
    assert kinds == ["export.sending", "export.sent"] * 2
    payload = events(with_pacs)[0]["payload"]
    (account,) = with_pacs.ledger.rows("account")
    wanted = {"by": account["account_id"], "identity": "authenticated", "reason": "tumour board", "to": "pacs"}
    assert wanted.items() <= payload.items()
    planted = json.loads((phantom / "planted_identifiers.json").read_text())
    texts = [json.dumps(row["payload"]) for row in events(with_pacs)]
    for file in with_pacs.root.rglob("*"):
        if file.is_file():
            texts.append(file.read_bytes().decode("latin-1"))
    assert not [text for text in planted if any(text in content for content in texts)]


def test_the_same_annotation_again_is_the_same_object(with_pacs: Project, orthanc: Orthanc, redraft) -> None:
    """Sent twice, the server holds it once."""
    command = ("label", "export", "--format", "seg", "--project", with_pacs.root, "--to", "pacs", "--by", "qa",
               "--reason", "x")  # fmt: skip
    assert [redraft(*command).code for _ in range(2)] == [0, 0]
    assert len(orthanc.find("Instance", Modality="SEG") or orthanc.find("Series", Modality="SEG")) == 2


def test_originals_that_changed_are_not_sent_to(
    with_pacs: Project, phantom: Path, orthanc: Orthanc, redraft, tmp_path: Path
) -> None:
    """An image elsewhere than the exam's record says: nothing leaves, nothing is on record as sent."""
    (phantom / "images").rename(phantom / "gone")
    try:
        orthanc.clear()
        for path in sorted((phantom / "gone").rglob("*.dcm")):
            dataset = pydicom.dcmread(path)
            x, y, z = dataset.ImagePositionPatient
            dataset.ImagePositionPatient = [x, y, float(z) + 1]
            dataset.save_as(tmp_path / "moved.dcm")
            orthanc.put([tmp_path / "moved.dcm"])
        answer = redraft("label", "export", "--format", "seg", "--project", with_pacs.root, "--to", "pacs", "--by",
                         "qa", "--reason", "x", "--json")  # fmt: skip
    finally:
        (phantom / "gone").rename(phantom / "images")
    assert answer.code == 1
    assert {row["rule"] for row in json.loads(answer.out)["sent"]} == {"integrity.originals"}
    assert orthanc.find("Series", Modality="SEG") == [] and events(with_pacs) == []


def test_a_patient_corrected_on_the_server_is_not_overruled_by_a_folder(
    with_pacs: Project, phantom: Path, orthanc: Orthanc, redraft, tmp_path: Path
) -> None:
    """The images in the folder still name the wrong patient; the server knows better."""
    orthanc.clear()
    for path in sorted((phantom / "images").rglob("*.dcm")):
        dataset = pydicom.dcmread(path)
        dataset.PatientID = f"CORRECTED-{dataset.PatientID}"
        dataset.save_as(tmp_path / "corrected.dcm")
        orthanc.put([tmp_path / "corrected.dcm"])
    answer = redraft("label", "export", "--format", "seg", "--project", with_pacs.root, "--to", "pacs", "--by", "qa",
                     "--reason", "x", "--json")  # fmt: skip
    assert answer.code == 1
    assert {row["rule"] for row in json.loads(answer.out)["sent"]} == {"integrity.originals"}
    assert orthanc.find("Series", Modality="SEG") == [] and events(with_pacs) == []


@pytest.mark.parametrize("name", ["PatientID", "StudyInstanceUID"])
def test_originals_of_several_patients_are_nobody_s(name: str, project: Project, phantom: Path) -> None:
    """One image of a series was moved to another patient or study: the first one does not speak for all."""
    found = [pydicom.dcmread(path, stop_before_pixels=True) for path in sorted((phantom / "images").rglob("*.dcm"))]
    series = found[0].SeriesInstanceUID
    headers = [header for header in found if header.SeriesInstanceUID == series]
    exam = geometry(project, project.pseudonyms.exam_id(series))
    compare(exam, headers, project.pseudonyms)
    uid = project.pseudonyms.uid
    moved = next(header for header in headers if uid(header.SOPInstanceUID) == exam.images[-1].uid)
    setattr(moved, name, "2.25.99")
    with pytest.raises(RedraftError, match="several patients") as caught:
        compare(exam, headers, project.pseudonyms)
    assert caught.value.code == "integrity.originals"


@pytest.mark.parametrize("what", ["down", "login", "gone"])
def test_a_pacs_that_does_not_say_is_told_from_one_that_has_lost_the_originals(
    what: str, with_pacs: Project, phantom: Path, orthanc: Orthanc, redraft, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Down, login refused, images deleted: each in its own words; nothing was sent, and nothing is on record."""
    path = with_pacs.root / "project.yaml"
    if what == "down":
        path.write_text(
            path.read_text().replace(orthanc.dicomweb_url + "'", "http://127.0.0.1:9', retry: {attempts: 1}")
        )
    elif what == "login":
        monkeypatch.setenv("PACS_PASSWORD", "wrong")
    else:
        orthanc.clear()
    (phantom / "images").rename(phantom / "gone")
    try:
        answer = redraft("label", "export", "--format", "seg", "--project", with_pacs.root, "--to", "pacs", "--by",
                         "qa", "--reason", "x", "--json")  # fmt: skip
    finally:
        (phantom / "gone").rename(phantom / "images")
    rule = {"down": "service.unreachable", "login": "service.refused", "gone": "integrity.originals"}[what]
    sent = json.loads(answer.out)["sent"]
    assert answer.code == 1 and [row["rule"] for row in sent] == [rule] * 2 and events(with_pacs) == []


def test_a_success_that_keeps_nothing_is_no_success(
    with_pacs: Project, orthanc: Orthanc, redraft, tmp_path: Path
) -> None:
    """A server whose filter drops segmentations and answers success: each is reported, and on record as not sent."""
    script = tmp_path / "filter.lua"
    script.write_text("function ReceivedInstanceFilter(dicom, origin) return dicom.Modality ~= 'SEG' end\n")
    with running_orthanc(tmp_path / "strict", options={"LuaScripts": [str(script)]}) as strict:
        path = with_pacs.root / "project.yaml"
        text = path.read_text().replace(orthanc.dicomweb_url + "'", f"{strict.dicomweb_url}', retry: {{attempts: 1}}")
        path.write_text(text)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PACS_USER", strict.user)
            patch.setenv("PACS_PASSWORD", strict.password)
            answer = redraft("label", "export", "--format", "seg", "--project", with_pacs.root, "--to", "pacs", "--by",
                             "qa", "--reason", "x", "--json")  # fmt: skip
        assert strict.find("Series", Modality="SEG") == []
    sent = json.loads(answer.out)["sent"]
    assert answer.code == 1 and [(row["ok"], row["rule"]) for row in sent] == [(False, "not_kept")] * 2
    records = [row["payload"] for row in events(with_pacs) if row["kind"] == "export.sent"]
    assert [(record["ok"], record["rule"]) for record in records] == [(False, "not_kept")] * 2


@pytest.mark.parametrize("target", ["empty", "down"])
def test_originals_are_looked_for_where_the_exam_came_from(
    target: str, with_pacs: Project, phantom: Path, orthanc: Orthanc, tmp_path: Path
) -> None:
    """The folder is gone and the PACS that gets the segmentations never had the images: their own source has them.

    One that does not say what it has is sent nothing: it may know of another patient.
    """
    path = with_pacs.root / "project.yaml"
    other = "    - {kind: dicomweb, name: other, url: 'http://127.0.0.1:9'}\n"
    path.write_text(path.read_text().replace("  sources:\n", "  sources:\n" + other, 1))
    project = Project.open(with_pacs.root)
    links = [
        {"identity": {**link["identity"], "source": "pacs", "folder": str(tmp_path / "gone")}}
        for link in project.vault.links("series")
    ]
    asked = []

    class Other:
        def headers(self, study: str, series: str) -> list[pydicom.Dataset]:
            asked.append(series)
            if target == "down":
                raise ServiceError("down", code="service.unreachable")
            return []

    servers = _Servers(
        project, "other", lambda project, section: Other() if section.name == "other" else _open(project, section)
    )
    for number, exam in enumerate(sorted(truths(project, phantom))):
        if target == "empty":
            found = resolve(geometry(project, exam), links, project.pseudonyms, servers.of)
            assert project.pseudonyms.uid(found.exam.series) == geometry(project, exam).series
        elsewhere = [{"identity": {**link["identity"], "source": "closed"}} for link in links]
        rule = "service.unreachable" if target == "down" else "integrity.originals"
        with pytest.raises(RedraftError) as caught:
            resolve(geometry(project, exam), elsewhere, project.pseudonyms, servers.of)
        assert caught.value.code == rule
        assert len(asked) == (2 * (number + 1) if target == "empty" else min(number + 1, 2))
