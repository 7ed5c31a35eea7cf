"""What goes wrong while somebody draws: nothing that was sent is lost, and what happened is told in clear words."""

from __future__ import annotations

import contextlib
import gzip
import json
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from redraft.project import Project
from redraft.signing import token, verify_result
from redraft.volumes import read_volume
from tests.bombs import gzip_bomb
from tests.servers.web import PASSWORD, WebServer, post_sign_in
from tests.web.at_work import (
    Clock,
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
from tests.web.made import exam_name

__all__ = ["clock", "server"]  # fixtures


def test_a_crash_between_label_and_result_is_mended_by_handing_in_again(server: WebServer) -> None:
    """A label without result.json is work in progress; the next submission writes both."""
    client, url, row = work_on(server, "axial")
    put(client, url, packed(drawing()), 0)
    package = server.project.work / row["assignment_id"]
    (package / "label.nii.gz").write_bytes(b"half a lab")
    assert collected(server.project) == ({}, {})
    assert submit(client, url, 1, "correct").status_code == 200
    np.testing.assert_array_equal(read_volume(package / "label.nii.gz").array, drawing())


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


def test_work_given_to_another_stays_with_who_drew_it(server: WebServer) -> None:
    """The first reader's late save is kept; who has the exam next does not see it, and who drew it gets it back with
    the exam: their last autosave and what came too late."""
    client, url, row = work_on(server, "scratch")
    put(client, url, packed(drawing(1)), 0)
    heir = "reader-2" if row["reader_id"] == "reader-1" else "reader-1"
    name = _give(server, row["assignment_id"], heir)
    error(put(client, url, packed(drawing(2)), 1), 410, "work.lease_expired")
    error(client.get(f"{url}/image"), 410, "work.lease_expired")
    theirs = other(server, row)
    assert theirs.get(f"/api/work/{name}").json()["offers"] == []
    error(theirs.get(f"/api/work/{name}/offers/1"), 404, "work.no_offer")
    back = _give(server, name, row["reader_id"])
    offers = client.get(f"/api/work/{back}").json()["offers"]
    assert {item["from_assignment"] for item in offers} == {row["assignment_id"]}
    found = [unpacked(client.get(f"/api/work/{back}/offers/{item['number']}")) for item in offers]
    assert len(found) == 2 and (found[0] == drawing(1)).all() and (found[1] == drawing(2)).all()


def _give(server: WebServer, assignment: str, reader: str) -> str:
    """Withdraw an assignment and give its exam to a reader, as a sweep does; returns the new one."""
    from redraft.ledger import AssignmentState, move_assignment
    from redraft.work_leases import replacement_id

    row = server.project.ledger.rows("assignment", assignment_id=assignment)[0]
    name = replacement_id(assignment, reader)
    with server.project.ledger.tx("test") as tx:
        move_assignment(tx, assignment, AssignmentState.WITHDRAWN)
        tx.insert("assignment", {**row, "assignment_id": name, "reader_id": reader, "state": "DISPATCHED"})
    source, target = server.project.work / assignment, server.project.work / name
    target.mkdir()
    (target / "image.nii.gz").write_bytes((source / "image.nii.gz").read_bytes())
    task = {**json.loads((source / "task.json").read_text()), "assignment_id": name, "reader_id": reader}
    (target / "task.json").write_text(json.dumps(task))
    return name


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


def test_a_server_that_is_killed_while_it_saves(project: Project) -> None:
    """Kill -9 under a stream of saves, start again: each acknowledged one is there, the session holds, work goes on."""
    project.ledger.engine.dispose()
    row = project.ledger.rows("assignment", exam_id=exam_name("axial"))[0]
    from redraft.accounts import directory

    directory.add(
        project, "anna", name="Anna", roles=("reader",), reader_id=row["reader_id"], password=PASSWORD,
        now=datetime.now(UTC),
    )  # fmt: skip
    port, url, number, acknowledged = 0, f"/api/work/{row['assignment_id']}", 0, 0
    cookies, csrf = httpx.Cookies(), ""
    for _ in range(3):
        command = [sys.executable, "-m", "app.cli.main", "serve", "--json", "--port", str(port), "--project"]
        child = subprocess.Popen([*command, str(project.root)], stdout=subprocess.PIPE, text=True)
        try:
            assert child.stdout is not None
            base = json.loads(child.stdout.readline())["url"]
            port = int(base.rpartition(":")[2])
            client = httpx.Client(base_url=base, timeout=30, cookies=cookies)
            if not csrf:
                assert post_sign_in(client, "anna", PASSWORD).status_code == 303
                csrf, cookies = client.get("/api/me").json()["csrf"], client.cookies
            client.headers["X-CSRF-Token"] = csrf
            saved = client.get(url).json()["autosave"]
            number = saved["number"] if saved else 0
            assert number in (acknowledged, acknowledged + 1)
            if number:
                np.testing.assert_array_equal(unpacked(client.get(f"{url}/mask")), drawing(number))
            killer = threading.Timer(0.4, child.kill)
            killer.start()
            with contextlib.suppress(httpx.TransportError):
                while True:
                    number = put(client, url, packed(drawing(number + 1)), number).json()["number"]
                    acknowledged = number
        finally:
            child.kill()
            child.wait()
    assert acknowledged > 0
