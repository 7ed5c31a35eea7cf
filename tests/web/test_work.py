"""A reader's work over the real server: what is shown to whom, what is kept, what is handed in, and clear refusals."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from redraft.errors import LabelError
from redraft.project import Project
from redraft.signing import token, verify_result
from redraft.volumes import read_volume
from tasks.dispatch.open_backend import backend_for
from tests.bombs import gzip_bomb
from tests.servers.web import WebServer, running_web
from tests.web.made import SHAPE, affine_of, exam_name

Json = dict[str, Any]


class Clock:
    """The server's time, moved by hand."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def server(project: Project, clock: Clock) -> Iterator[WebServer]:
    """The pages with two readers; leases of all that is out."""
    with project.ledger.tx("test") as tx:
        for row in project.ledger.rows("assignment"):
            if tx.one("work_lease", assignment_id=row["assignment_id"]) is None:
                expires = datetime.now(UTC) + timedelta(hours=72)
                tx.insert(
                    "work_lease",
                    {"assignment_id": row["assignment_id"], "expires_at": expires, "extensions": 0, "state": "held"},
                )
    for row in project.ledger.rows("exam"):
        record = {
            "exam_id": row["exam_id"], "subject_id": row["subject_id"], "modality": "CT", "shape": row["shape"],
            "affine_ras": row["affine"],
        }  # fmt: skip
        project.image(row["exam_id"]).with_name("exam.json").write_text(json.dumps(record))
    with running_web(project, clock=clock, sweep_command=["true"]) as server:
        server.add("anna", reader="reader-1")
        server.add("ben", reader="reader-2")
        yield server


def work_on(server: WebServer, name: str) -> tuple[httpx.Client, str, dict[str, Any]]:
    """A client of the reader who has this exam, the API's address of it, and the ledger's row."""
    row = server.project.ledger.rows("assignment", exam_id=exam_name(name))[0]
    client = server.sign_in("anna" if row["reader_id"] == "reader-1" else "ben")
    return client, f"/api/work/{row['assignment_id']}", row


def other(server: WebServer, row: dict[str, Any]) -> httpx.Client:
    """A client of the other reader."""
    return server.sign_in("ben" if row["reader_id"] == "reader-1" else "anna")


def packed(array: NDArray[np.uint8]) -> bytes:
    return gzip.compress(array.tobytes(order="F"), 1)


def drawing(seed: int = 0) -> NDArray[np.uint8]:
    """Something drawn: asymmetric in every axis."""
    rng = np.random.default_rng(seed)
    array = np.zeros(SHAPE, np.uint8)
    array[10:40, 20:33, 3:9] = 1
    array[12:15, 21:30, 4:7] = 2
    array[tuple(rng.integers(0, SHAPE[axis], 50) for axis in range(3))] = 1
    return array


def put(
    client: httpx.Client, url: str, body: bytes, base: int, sitting: str = "tab-1", **kwargs: Any
) -> httpx.Response:
    return client.put(f"{url}/mask", params={"base": base, "sitting": sitting}, content=body, **kwargs)


def error(response: httpx.Response, status: int, code: str) -> Json:
    """The error on the wire, after checking what it is and that it has words."""
    found: Json = response.json()["error"]
    assert (response.status_code, found["code"]) == (status, code), response.text
    assert found["what"] and found["do"]
    return found


def unpacked(response: httpx.Response) -> NDArray[np.uint8]:
    assert response.status_code == 200, response.text
    return np.frombuffer(gzip.decompress(response.content), np.uint8).reshape(SHAPE, order="F")


def submit(client: httpx.Client, url: str, number: int | None, verdict: str, **more: Any) -> httpx.Response:
    body = {"sitting": "tab-1", "number": number, "verdict": verdict, **more}
    return client.post(f"{url}/submit", json=body)


def collected(project: Project) -> tuple[dict[str, Any], dict[str, LabelError]]:
    """What the backend takes in now, by assignment, and what it refuses."""
    failed: dict[str, LabelError] = {}
    names = [row["assignment_id"] for row in project.ledger.rows("assignment")]
    return {item.assignment_id: item for item in backend_for(project).collect(names, failed.__setitem__)}, failed


@pytest.mark.parametrize("name", ["axial", "oblique"])
def test_from_opening_to_handing_in(server: WebServer, name: str) -> None:
    """What was drawn is what is stored, voxel for voxel, on the image's affine; the package is taken in as measured."""
    client, url, row = work_on(server, name)
    facts = client.get(url).json()
    assert facts["shape"] == list(SHAPE) and facts["draft"] and facts["autosave"] is None
    assert facts["uncertainty"]["axis"] == 2 and len(facts["uncertainty"]["exam"]) == SHAPE[2]
    np.testing.assert_allclose(facts["affine"], affine_of(name), atol=1e-4)
    image = nib.Nifti1Image.from_bytes(client.get(f"{url}/image").content)
    original = read_volume(server.project.work / row["assignment_id"] / "image.nii.gz")
    np.testing.assert_array_equal(np.asanyarray(image.dataobj), original.array)
    assert image.get_data_dtype() == np.int16 and facts["dtype"] == "int16"
    np.testing.assert_array_equal(image.affine, original.affine)

    assert client.post(f"{url}/tab", json={"sitting": "tab-1"}).json() == {"mine": True}
    first = put(client, url, packed(drawing(1)), 0)
    second = put(
        client,
        url,
        packed(drawing(2)),
        first.json()["number"],
        headers={"X-Redraft-Reading": '{"verdict_so_far": "correct"}'},
    )
    assert [first.json()["number"], second.json()["number"]] == [1, 2]
    np.testing.assert_array_equal(unpacked(client.get(f"{url}/mask")), drawing(2))
    np.testing.assert_array_equal(unpacked(client.get(f"{url}/mask", params={"number": 1})), drawing(1))
    assert client.get(url).json()["autosave"]["verdict"] == "correct"

    done = submit(client, url, 2, "correct", remark="a remark")
    assert done.json()["state"] == "returned", done.text
    label = nib.load(server.project.work / row["assignment_id"] / "label.nii.gz")
    np.testing.assert_array_equal(np.asanyarray(label.dataobj), drawing(2))
    np.testing.assert_array_equal(label.affine, original.affine)
    items, failed = collected(server.project)
    assert not failed and items[row["assignment_id"]].result.origin == "measured"
    assert items[row["assignment_id"]].result.voxels_changed == done.json()["voxels_changed"] > 0


def test_slices_are_the_images_own(server: WebServer) -> None:
    """Each axis, first and last slice, byte for byte; one that is not there is a clear error; ranges and ETags hold."""
    client, url, row = work_on(server, "oblique")
    array = read_volume(server.project.work / row["assignment_id"] / "image.nii.gz").array
    for axis in range(3):
        for index in (0, SHAPE[axis] - 1):
            answer = client.get(f"{url}/slice", params={"axis": axis, "index": index})
            assert answer.content == array.take(index, axis).astype("<i2").tobytes(order="F")
    error(client.get(f"{url}/slice", params={"axis": 2, "index": SHAPE[2]}), 404, "work.slice")
    whole = client.get(f"{url}/image")
    part = client.get(f"{url}/image", headers={"Range": "bytes=352-451"})
    assert part.status_code == 206 and part.content == whole.content[352:452]
    assert client.get(f"{url}/image", headers={"If-None-Match": whole.headers["etag"]}).status_code == 304
    assert "no-store" not in whole.headers["cache-control"]


def test_others_work_is_not_there(server: WebServer) -> None:
    """Every route answers 404 for an exam of another reader, as for one that does not exist."""
    client, url, row = work_on(server, "axial")
    stranger = other(server, row)
    put(client, url, packed(drawing()), 0)
    for asking, place in ((stranger, url), (client, "/api/work/absent")):
        for path in ("", "/image", "/slice?axis=2&index=0", "/draft", "/mask", "/offers/1"):
            error(asking.get(f"{place}{path}"), 404, "work.not_found")
        error(put(asking, place, packed(drawing()), 1), 404, "work.not_found")
        error(submit(asking, place, 1, "correct"), 404, "work.not_found")
        for path, body in (("tab", {"sitting": "x"}), ("extend", {}), ("offers/1", {"merge": "drop"})):
            error(asking.post(f"{place}/{path}", json=body), 404, "work.not_found")
        error(asking.post(f"{place}/upload", content=b"x"), 404, "work.not_found")
    assert client.get(url).json()["autosave"]["number"] == 1
    assert server.client().get(url).status_code == 401
    del client.headers["X-CSRF-Token"]
    assert put(client, url, packed(drawing()), 1).status_code == 403


def test_each_sitting_that_saw_an_exam_is_on_record_once(server: WebServer) -> None:
    """Image, slices and draft of one sign-in are one event with account and exam; another sign-in is another one."""
    client, url, row = work_on(server, "axial")
    client.get(url)
    assert server.project.ledger.rows("audit_event", kind="exam.viewed") == []
    for path in ("image", "slice?axis=2&index=3", "draft", "image"):
        assert client.get(f"{url}/{path}").status_code == 200
    (seen,) = server.project.ledger.rows("audit_event", kind="exam.viewed")
    assert seen["payload"]["exam_id"] == row["exam_id"] and seen["actor"] == seen["payload"]["account_id"]
    again, url, _ = work_on(server, "axial")
    again.get(f"{url}/image")
    assert len(server.project.ledger.rows("audit_event", kind="exam.viewed")) == 2


def test_a_draft_never_reaches_who_draws_from_scratch(server: WebServer) -> None:
    """No draft, no uncertainty, no word of it by any route, even where a file of that name lies in the package."""
    client, url, row = work_on(server, "scratch")
    package = server.project.work / row["assignment_id"]
    draft = next((server.project.data / "drafts").glob(f"*/{row['exam_id']}/*.nii.gz"))
    (package / "draft.nii.gz").write_bytes(draft.read_bytes())
    facts = client.get(url).json()
    assert facts["draft"] is False and facts["uncertainty"] is None
    assert "draft" not in " ".join(reason["code"] for reason in facts["reasons"])
    error(client.get(f"{url}/draft"), 404, "work.no_draft")
    error(client.get(f"{url}/mask"), 404, "work.no_mask")
    error(submit(client, url, 0, "scratch"), 409, "work.nothing_drawn")
    put(client, url, packed(drawing()), 0)
    assert submit(client, url, 1, "accept").json()["verdict"] == "scratch"
    assert collected(server.project)[0][row["assignment_id"]].result.voxels_changed is None


def test_verdicts_are_what_the_voxels_say(server: WebServer) -> None:
    """The draft as it is is accepted, whatever was pressed; one voxel away from it is a correction."""
    client, url, _ = work_on(server, "axial")
    draft = unpacked(client.get(f"{url}/draft")).copy()
    assert put(client, url, packed(draft), 0).json()["number"] == 1
    draft[5, 5, 5] ^= 1
    assert put(client, url, packed(draft), 1).json()["number"] == 2
    done = submit(client, url, 2, "accept").json()
    assert (done["verdict"], done["voxels_changed"]) == ("correct", 1)
    client, url, row = work_on(server, "fourth")
    done = submit(client, url, 0, "correct").json()
    assert (done["verdict"], done["voxels_changed"]) == ("accept", 0)
    package = server.project.work / row["assignment_id"]
    np.testing.assert_array_equal(
        read_volume(package / "label.nii.gz").array, read_volume(package / "draft.nii.gz").array
    )


def test_handing_in_twice_is_once(server: WebServer) -> None:
    """The same again is the same result; anything else is refused, and so is what is drawn afterwards (but kept)."""
    client, url, row = work_on(server, "axial")
    put(client, url, packed(drawing()), 0)
    first = submit(client, url, 1, "correct")
    written = (server.project.work / row["assignment_id"] / "result.json").read_bytes()
    assert submit(client, url, 1, "correct").json() == first.json()
    assert (server.project.work / row["assignment_id"] / "result.json").read_bytes() == written
    error(submit(client, url, 1, "reject", reason_code="poor_image", no_label=True), 409, "work.submitted")
    error(put(client, url, packed(drawing(5)), 1), 409, "work.submitted")
    (kept,) = client.get(url).json()["offers"]
    np.testing.assert_array_equal(unpacked(client.get(f"{url}/offers/{kept['number']}")), drawing(5))
    assert client.get("/api/work").json()[0]["state"] in ("RETURNED", "DISPATCHED")


def test_a_crash_between_label_and_result_is_mended_by_handing_in_again(server: WebServer) -> None:
    """A label without result.json is work in progress; the next submission writes both."""
    client, url, row = work_on(server, "axial")
    put(client, url, packed(drawing()), 0)
    package = server.project.work / row["assignment_id"]
    (package / "label.nii.gz").write_bytes(b"half a lab")
    assert collected(server.project) == ({}, {})
    assert submit(client, url, 1, "correct").status_code == 200
    np.testing.assert_array_equal(read_volume(package / "label.nii.gz").array, drawing())


def test_only_what_was_saved_last_is_handed_in(server: WebServer) -> None:
    """A page that has not seen the newest autosave may not hand in; nor may a tab without the pen."""
    client, url, _ = work_on(server, "axial")
    put(client, url, packed(drawing(1)), 0)
    put(client, url, packed(drawing(2)), 1)
    error(submit(client, url, 1, "correct"), 409, "work.stale")
    error(submit(client, url, None, "correct"), 409, "work.stale")
    error(client.post(f"{url}/submit", json={"sitting": "tab-2", "number": 2, "verdict": "correct"}), 409, "work.tab")


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ({"verdict": "reject"}, "work.reason"),
        ({"verdict": "reject", "reason_code": "dull"}, "work.reason"),
        ({"verdict": "reject", "reason_code": "poor_image"}, "work.reason"),
        ({"verdict": "reject", "reason_code": "draft_unusable", "no_label": True}, "work.reason"),
        ({"verdict": "accept", "no_label": True}, "work.verdict"),
        ({"verdict": "correct", "remark": "x" * 5000}, "work.remark"),
    ],
)
def test_words_that_contradict_one_another_are_refused(server: WebServer, said: Json, code: str) -> None:
    """Nothing is written, and the reader is told which word does not fit."""
    client, url, row = work_on(server, "axial")
    put(client, url, packed(drawing()), 0)
    error(client.post(f"{url}/submit", json={"sitting": "tab-1", "number": 1, **said}), 422, code)
    assert not (server.project.work / row["assignment_id"] / "result.json").exists()


def test_an_exam_can_go_back_without_a_label(server: WebServer) -> None:
    """Assisted or from scratch: the reason is handed on, no label is, and the package is taken in signed."""
    for name, reason in (("axial", "poor_image"), ("scratch", "wrong_anatomy")):
        client, url, row = work_on(server, name)
        put(client, url, packed(drawing()), 0)
        done = submit(client, url, 1, "reject", reason_code=reason, no_label=True)
        assert done.json()["verdict"] == "reject", done.text
        item = collected(server.project)[0][row["assignment_id"]]
        assert (item.label, item.label_sha256, item.result.reason_code) == (None, None, reason)


def test_two_tabs(server: WebServer) -> None:
    """One holds the pen; what the other sends is kept and told; taking over works, and so does merging kept work."""
    client, url, _ = work_on(server, "axial")
    put(client, url, packed(drawing(1)), 0)
    assert client.get(url, params={"sitting": "tab-2"}).json()["tab"] == {"mine": False, "held_by_other": True}
    assert client.post(f"{url}/tab", json={"sitting": "tab-2"}).json() == {"mine": False}
    error(put(client, url, packed(drawing(2)), 1, "tab-2"), 409, "work.tab")
    assert client.post(f"{url}/tab", json={"sitting": "tab-2", "take": True}).json() == {"mine": True}
    assert put(client, url, packed(drawing(3)), 1, "tab-2").json()["number"] == 2
    error(put(client, url, packed(drawing(4)), 1, "tab-1"), 409, "work.tab")
    offers = client.get(url).json()["offers"]
    assert [item["why"] for item in offers] == ["tab", "tab"]
    np.testing.assert_array_equal(unpacked(client.get(f"{url}/offers/{offers[1]['number']}")), drawing(4))
    merged = client.post(f"{url}/offers/{offers[1]['number']}", json={"merge": "add"})
    assert merged.json()["number"] == 3, merged.text
    wanted = np.where(drawing(3) > 0, drawing(3), drawing(4))
    np.testing.assert_array_equal(unpacked(client.get(f"{url}/mask")), wanted)
    client.post(f"{url}/offers/{offers[0]['number']}", json={"merge": "drop"})
    assert client.get(url).json()["offers"] == []
    error(client.get(f"{url}/offers/{offers[0]['number']}"), 404, "work.no_offer")


def test_an_old_base_is_stale_and_kept(server: WebServer) -> None:
    """A save that does not follow the newest one becomes an offer; `replace` puts it in its place."""
    client, url, _ = work_on(server, "axial")
    put(client, url, packed(drawing(1)), 0)
    put(client, url, packed(drawing(2)), 1)
    error(put(client, url, packed(drawing(3)), 1), 409, "work.stale")
    (kept,) = client.get(url).json()["offers"]
    client.post(f"{url}/offers/{kept['number']}", json={"merge": "replace", "sitting": "tab-1"})
    np.testing.assert_array_equal(unpacked(client.get(f"{url}/mask")), drawing(3))


def test_a_save_sent_again_is_one_save(server: WebServer) -> None:
    """Where the answer was lost on the way, the same request gets the same answer and makes nothing new."""
    client, url, row = work_on(server, "axial")
    first = put(client, url, packed(drawing(1)), 0).json()
    assert put(client, url, packed(drawing(1)), 0).json() == first
    put(client, url, packed(drawing(2)), 1)
    assert put(client, url, packed(drawing(1)), 0).json() == first
    assert client.get(url).json()["offers"] == []
    assert len(list((server.project.state / "desk" / row["assignment_id"]).glob("*.gz"))) == 2


def test_time_that_ran_out_while_drawing(server: WebServer, clock: Clock) -> None:
    """The drawing is kept as an offer; extended, the reader takes it up again; handing in waits for that."""
    client, url, _ = work_on(server, "axial")
    put(client, url, packed(drawing(1)), 0)
    with server.project.ledger.tx("test") as tx:
        expired = datetime.now(UTC) - timedelta(minutes=1)
        for lease in server.project.ledger.rows("work_lease"):
            tx.update("work_lease", {"assignment_id": lease["assignment_id"]}, {"expires_at": expired})
    assert client.get(url).json()["lease"]["expired"] is True
    error(put(client, url, packed(drawing(2)), 1), 410, "work.lease_expired")
    error(submit(client, url, 1, "correct"), 410, "work.lease_expired")
    assert client.post(f"{url}/extend", json={}).json()["expired"] is False
    (kept,) = client.get(url).json()["offers"]
    assert kept["why"] == "lease_expired"
    client.post(f"{url}/offers/{kept['number']}", json={"merge": "replace"})
    assert submit(client, url, 2, "correct").status_code == 200


def test_work_given_to_another_is_offered_to_them(server: WebServer) -> None:
    """The first reader's late save is kept; who has the exam now sees it and their last autosave, nobody else does."""
    from redraft.ledger import AssignmentState, move_assignment
    from redraft.work_leases import replacement_id

    client, url, row = work_on(server, "scratch")
    put(client, url, packed(drawing(1)), 0)
    heir = "reader-2" if row["reader_id"] == "reader-1" else "reader-1"
    name = replacement_id(row["assignment_id"], heir)
    with server.project.ledger.tx("test") as tx:
        move_assignment(tx, row["assignment_id"], AssignmentState.WITHDRAWN)
        tx.update("work_lease", {"assignment_id": row["assignment_id"]}, {"state": "expired"})
        tx.insert("assignment", {**row, "assignment_id": name, "reader_id": heir, "state": "DISPATCHED"})
    source = server.project.work / row["assignment_id"]
    target = server.project.work / name
    target.mkdir()
    (target / "image.nii.gz").write_bytes((source / "image.nii.gz").read_bytes())
    task = {**json.loads((source / "task.json").read_text()), "assignment_id": name, "reader_id": heir}
    (target / "task.json").write_text(json.dumps(task))
    error(put(client, url, packed(drawing(2)), 1), 410, "work.lease_expired")
    error(client.get(f"{url}/image"), 410, "work.lease_expired")
    theirs = other(server, row)
    facts = theirs.get(f"/api/work/{name}").json()
    assert {item["from_assignment"] for item in facts["offers"]} == {row["assignment_id"]}
    found = [unpacked(theirs.get(f"/api/work/{name}/offers/{item['number']}")) for item in facts["offers"]]
    assert len(found) == 2 and (found[0] == drawing(1)).all() and (found[1] == drawing(2)).all()
    assert theirs.get(f"/api/work/{name}").json()["offers"] == facts["offers"]


GOOD = packed(drawing())
BROKEN = {
    "cut short": (GOOD[:-9], "work.not_gzip"),
    "no gzip": (b"hello", "work.not_gzip"),
    "empty": (b"", "work.not_gzip"),
    "checksum": (GOOD[:-8] + b"\0\0\0\0" + GOOD[-4:], "work.not_gzip"),
    "more after it": (GOOD + b"x", "work.not_gzip"),
    "two streams": (GOOD + GOOD, "work.not_gzip"),
    "a voxel too few": (gzip.compress(drawing().tobytes()[:-1]), "work.grid"),
    "a voxel too many": (gzip.compress(drawing().tobytes() + b"\0"), "work.grid"),
    "a value of nothing": (packed(np.where(drawing() == 2, 7, drawing()).astype(np.uint8)), "work.values"),
}


def test_broken_masks_are_refused_and_change_nothing(server: WebServer) -> None:
    """Each with its own words; a bomb is unpacked to the image's size and no further; a huge body is not read."""
    client, url, row = work_on(server, "axial")
    put(client, url, packed(drawing(1)), 0)
    for body, code in BROKEN.values():
        error(put(client, url, body, 1), 422, code)
    error(put(client, url, gzip_bomb(10 << 30), 1), 422, "work.grid")
    assert put(client, url, bytes(65 << 20), 1).status_code == 413
    assert client.get(url).json()["autosave"]["number"] == 1 and client.get(url).json()["offers"] == []
    assert len(list((server.project.state / "desk" / row["assignment_id"]).glob("*.gz"))) == 1


def nifti(array: NDArray[Any], affine: NDArray[np.float64]) -> bytes:
    return gzip.compress(nib.Nifti1Image(array, affine).to_bytes())


def test_labels_made_elsewhere(server: WebServer) -> None:
    """NIfTI and NRRD on the exam's grid become an autosave; twice is once; a token, where given, must be right."""
    from redraft.segmentation.exam import ExamGeometry
    from redraft.segmentation.nrrd_file import write_nrrd

    client, url, row = work_on(server, "oblique")
    affine = read_volume(server.project.work / row["assignment_id"] / "image.nii.gz").affine
    send = lambda body, **headers: client.post(f"{url}/upload", content=body, headers=headers)  # noqa: E731
    right = token(server.project.checked_keys, row["assignment_id"], row["reader_id"], row["attempt"])
    first = send(nifti(drawing(1), affine), **{"X-Redraft-Token": right})
    assert first.json()["number"] == 1, first.text
    assert send(nifti(drawing(1), affine)).json() == first.json()
    np.testing.assert_array_equal(unpacked(client.get(f"{url}/mask")), drawing(1))
    exam = ExamGeometry.load(server.project.image(row["exam_id"]).with_name("exam.json"))
    path = server.project.root / "label.seg.nrrd"
    write_nrrd(path, drawing(2), exam, server.project.config.structures)
    assert send(path.read_bytes()).json()["number"] == 2
    np.testing.assert_array_equal(unpacked(client.get(f"{url}/mask")), drawing(2))

    keys = server.project.checked_keys
    another_exam = token(keys, "another", row["reader_id"], row["attempt"])
    another_reader = token(keys, row["assignment_id"], "reader-9", row["attempt"])
    earlier = token(keys, row["assignment_id"], row["reader_id"], row["attempt"] - 1)
    for wrong in (another_exam, another_reader, earlier, "nonsense"):
        error(send(nifti(drawing(3), affine), **{"X-Redraft-Token": wrong}), 403, "work.token")
    shifted = affine.copy()
    shifted[0, 3] += 3.0
    error(send(nifti(drawing(3), shifted)), 422, "label.grid")
    error(send(nifti(drawing(3)[:-1], affine)), 422, "label.grid")
    error(send(nifti(drawing(3) + 5, affine)), 422, "label.unknown_values")
    error(send(b"no label at all" * 99), 422, "work.not_a_label")
    error(send(nifti(drawing(3), affine)[:-20]), 422, "work.not_a_label")
    error(send(gzip_bomb(10 << 30)), 413, "work.too_large")
    assert client.get(url).json()["autosave"]["number"] == 2
    assert not list((server.project.state / "desk" / row["assignment_id"]).glob(".upload-*"))


def test_a_reader_who_is_removed_in_the_middle(server: WebServer) -> None:
    """The next save is refused, the last one is kept."""
    from redraft.accounts import directory

    client, url, row = work_on(server, "axial")
    put(client, url, packed(drawing(1)), 0)
    login = "anna" if row["reader_id"] == "reader-1" else "ben"
    directory.remove(server.project, login, now=datetime.now(UTC))
    assert put(client, url, packed(drawing(2)), 1).status_code == 401
    assert len(list((server.project.state / "desk" / row["assignment_id"]).glob("*.gz"))) == 1


def test_a_full_disk_is_told_and_nothing_counts_that_is_not_there(
    server: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """507 with `retry`; the autosave before stands, and the next try succeeds when there is room."""
    import errno
    import os

    client, url, _ = work_on(server, "axial")
    put(client, url, packed(drawing(1)), 0)
    real = os.fsync

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("redraft.files.os.fsync", full)
    found = error(put(client, url, packed(drawing(2)), 1), 507, "storage.full")
    assert found["retry"] is True
    monkeypatch.setattr("redraft.files.os.fsync", real)
    np.testing.assert_array_equal(unpacked(client.get(f"{url}/mask")), drawing(1))
    assert put(client, url, packed(drawing(2)), 1).json()["number"] == 2


def test_a_result_typed_into_the_package_does_not_count(server: WebServer, tmp_path: Path) -> None:
    """Neither typed minutes, nor measured ones without a signature, nor a signature over another label or reader."""
    client, url, row = work_on(server, "axial")
    put(client, url, packed(drawing()), 0)
    submit(client, url, 1, "correct")
    package = server.project.work / row["assignment_id"]
    result = json.loads((package / "result.json").read_text())
    keys = server.project.checked_keys
    from redraft.digest import sha256_file

    assert verify_result(keys, result, sha256_file(package / "label.nii.gz"))
    for change, rule in (
        ({"origin": "typed", "signature": None}, "unsigned"),
        ({"signature": None}, "unsigned"),
        ({"minutes": {"exam": {"active": 99.0}}}, "unsigned"),
        ({"token": token(keys, row["assignment_id"], row["reader_id"], 0)}, "token"),
    ):
        (package / "result.json").write_text(json.dumps({**result, **change}))
        assert {name: e.rule for name, e in collected(server.project)[1].items()} == {row["assignment_id"]: rule}
    (package / "result.json").write_text(json.dumps(result))
    (package / "label.nii.gz").write_bytes((package / "draft.nii.gz").read_bytes())
    assert collected(server.project)[1][row["assignment_id"]].rule == "unsigned"
