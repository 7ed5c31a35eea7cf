"""A reader's work over the real server: what is shown to whom, what is handed in, and clear refusals."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from redraft.volumes import read_volume
from tests.servers.web import WebServer
from tests.web.at_work import (
    Json,
    clock,
    collected,
    drawing,
    error,
    other,
    packed,
    put,
    server,
    submit,
    unpacked,
    work_on,
)
from tests.web.made import SHAPE, affine_of

__all__ = ["clock", "server"]  # fixtures


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
