"""Second looks and adjudications over HTTP: who may, what they see, and what becomes of it."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from redraft.project import Project
from redraft.volumes import read_volume
from tests.servers.web import WebServer, running_web
from tests.tasks.validate.made_readings import (
    DOUBLE,
    broken,
    copied,
    dispatched,
    hand_in,
    label_for,
    note,
    pair,
    receive,
    rules,
    training,
)


@pytest.fixture(scope="module")
def read(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two readers of one exam who disagree, everything before a reviewer."""
    root = tmp_path_factory.mktemp("read") / "kidneys"
    project = dispatched(copied(made, root, DOUBLE, rules("review_share: 1.0")), accounts=False)
    first, second = pair(project)
    hand_in(project, first)
    hand_in(project, second, shift=3)
    receive(project)
    project.ledger.engine.dispose()
    return root


@pytest.fixture
def site(read: Path, tmp_path: Path) -> Iterator[WebServer]:
    """A copy of it, with accounts of all roles."""
    project = copied(read, tmp_path / "kidneys")
    with running_web(project, sweep_command=["true"]) as server:
        server.add("rita", "reviewer")
        server.add("anna", "reader", "reviewer", reader="reader-1")
        server.add("olaf", "ops")
        yield server


def mask_of(content: bytes, project: Project, exam: str) -> np.ndarray:
    """A mask from the wire: one byte per voxel, the first axis fastest."""
    shape = read_volume(project.image(exam)).shape
    return np.frombuffer(gzip.decompress(content), np.uint8).reshape(shape, order="F")


def wire(label: np.ndarray) -> bytes:
    return gzip.compress(label.tobytes(order="F"))


def accept_all(site: WebServer) -> None:
    rita = site.sign_in("rita")
    for item in rita.get("/api/reviews").json():
        answer = rita.post(f"/api/reviews/{item['review_id']}", json={"decision": "accept"})
        assert answer.json() == {"state": "accepted"}
    receive(site.project)


def test_a_reviewer_sees_the_work_and_not_whose_it_is(site: WebServer) -> None:
    """Image, label and flags are there, exactly; no answer names a reader, and looking is on record once."""
    rita, project = site.sign_in("rita"), site.project
    queue = rita.get("/api/reviews").json()
    assert len(queue) == 2 and all(item["why"] == "sample" for item in queue)
    url = f"/api/reviews/{queue[0]['review_id']}"
    info = rita.get(url)
    assert "reader-1" not in info.text and "reader-2" not in info.text and "token" not in info.json()
    assert info.json()["annotation"]["minutes"] == 3.0 and info.json()["reasons"][0]["code"] == "border"
    exam = queue[0]["exam_id"]
    (row,) = [
        r for r in project.ledger.rows("annotation") if r["annotation_id"] == info.json()["annotation"]["annotation_id"]
    ]
    label = mask_of(rita.get(f"{url}/label").content, project, exam)
    np.testing.assert_array_equal(label, read_volume(project.root / row["path"]).array)
    image = rita.get(f"{url}/image")
    assert (
        image.status_code == 200
        and rita.get(f"{url}/image", headers={"If-None-Match": image.headers["etag"]}).status_code == 304
    )
    plane = np.frombuffer(rita.get(f"{url}/slice?axis=2&index=3").content, info.json()["dtype"])
    np.testing.assert_array_equal(plane.reshape(12, 10, order="F"), read_volume(project.image(exam)).array[:, :, 3])
    seen = [e for e in project.ledger.rows("audit_event", kind="exam.viewed") if e["payload"]["exam_id"] == exam]
    assert len(seen) == 1 and seen[0]["actor"] == site.accounts["rita"].account_id


def test_only_reviewers_and_never_of_their_own_work(site: WebServer) -> None:
    """No sign-in 401, another role 403; a reviewer's own reading is neither listed nor there."""
    rita = site.sign_in("rita")
    everything = rita.get("/api/reviews").json()
    assert site.client().get("/api/reviews").status_code == 401
    assert site.sign_in("olaf").get("/api/reviews").status_code == 403
    anna = site.sign_in("anna")
    notes = {item["review_id"]: rita.get(f"/api/reviews/{item['review_id']}").json() for item in everything}
    own = [
        review
        for review, facts in notes.items()
        if _reader(site.project, facts["annotation"]["annotation_id"]) == "reader-1"
    ]
    assert len(own) == 1 and anna.get("/api/reviews").json() == []
    assert anna.get(f"/api/reviews/{own[0]}").status_code == 404
    assert anna.post(f"/api/reviews/{own[0]}", json={"decision": "accept"}).status_code == 404
    bare = site.sign_in("rita")
    del bare.headers["X-CSRF-Token"]
    assert bare.post(f"/api/reviews/{own[0]}", json={"decision": "accept"}).status_code == 403


def _reader(project: Project, annotation_id: str) -> str:
    row = project.ledger.one("annotation", annotation_id=annotation_id)
    assert row is not None
    return str(row["reader_id"])


def test_who_still_reads_an_exam_sees_nobody_elses_reading_of_it(site: WebServer) -> None:
    """A second reader who reviews too: while the own reading may change, the other one is 404; then it is there."""
    rita, anna, project = site.sign_in("rita"), site.sign_in("anna"), site.project
    queue = [item["review_id"] for item in rita.get("/api/reviews").json()]
    facts = {review: rita.get(f"/api/reviews/{review}").json()["annotation"]["annotation_id"] for review in queue}
    (own,) = [review for review in queue if _reader(project, facts[review]) == "reader-1"]
    (other,) = [review for review in queue if review != own]
    for path in ("", "/image", "/label", "/draft", "/slice?axis=2&index=1"):
        assert anna.get(f"/api/reviews/{other}{path}").status_code == 404, path
    assert anna.post(f"/api/reviews/{other}", json={"decision": "accept"}).status_code == 404
    assert anna.get(f"/reviews/{other}").status_code == 404
    rita.post(f"/api/reviews/{own}", json={"decision": "accept"})  # read, and final
    assert anna.get(f"/api/reviews/{other}/label").status_code == 200
    assert [item["review_id"] for item in anna.get("/api/reviews").json()] == [other]


def test_returned_work_goes_back_with_its_reason(site: WebServer) -> None:
    """The package holds reason and remark, the ledger only that there was one; deciding twice is refused."""
    rita, project = site.sign_in("rita"), site.project
    review = rita.get("/api/reviews").json()[0]
    url = f"/api/reviews/{review['review_id']}"
    assert rita.post(url, json={"decision": "return"}).status_code == 422
    assert rita.post(url, json={"decision": "return", "reason_code": "other"}).status_code == 422
    said = {"decision": "return", "reason_code": "border", "remark": "upper pole,\nslice 12"}
    assert rita.post(url, json=said).json() == {"state": "returned"}
    assert rita.post(url, json=said).status_code == 404
    row = project.ledger.one("review", review_id=review["review_id"])
    assert row is not None and row["remark_present"] and row["state"] == "returned"
    told = [path.read_text() for path in project.work.glob("*/RETURNED.txt")]
    assert len(told) == 1 and "- The reviewer's remark: upper pole, slice 12\n" in told[0]
    assert not any("upper pole" in str(event["payload"]) for event in project.ledger.rows("audit_event"))


@pytest.mark.parametrize("choose", ["reading", "own", "majority"])
def test_an_adjudicator_decides(site: WebServer, choose: str) -> None:
    """Readings without names, the map, the choice; the own label is kept voxel for voxel. Readers of it may not."""
    accept_all(site)
    rita, project = site.sign_in("rita"), site.project
    assert site.sign_in("anna").get("/api/adjudications").json() == []
    (item,) = rita.get("/api/adjudications").json()
    url, exam = f"/api/adjudications/{item['consensus_id']}", item["exam_id"]
    assert site.sign_in("anna").get(url).status_code == 404
    info = rita.get(url)
    assert "reader-1" not in info.text and info.json()["consensus"]["disputed"] == ["kidney"]
    readings = [
        mask_of(rita.get(f"{url}/reading/{one['n']}").content, project, exam) for one in info.json()["readings"]
    ]
    assert rita.get(f"{url}/reading/3").status_code == 404
    apart = mask_of(rita.get(f"{url}/disagreement").content, project, exam)
    np.testing.assert_array_equal(apart, (readings[0] != readings[1]).astype(np.uint8))
    assert rita.get(f"{url}/consensus").status_code == 200
    own = label_for(project, exam, 1)
    assert rita.post(url, json={"choose": "own"}).status_code == 409
    assert rita.put(f"{url}/mask?base=0&sitting=s1", content=wire(np.full_like(own, 9))).status_code == 422
    assert rita.put(f"{url}/mask?base=0&sitting=s1", content=wire(own[:-1])).status_code == 422
    assert rita.put(f"{url}/mask?base=0&sitting=s1", content=wire(own)).json()["number"] == 1
    assert rita.post(url, json={"choose": "reading", "n": 0}).status_code == 422
    made = rita.post(url, json={"choose": choose, "n": 2}).json()["consensus_id"]
    expected = {"reading": readings[1], "own": own, "majority": readings[0] & readings[1]}[choose]
    label = training(project)[exam]
    assert label.annotation_id == made
    np.testing.assert_array_equal(read_volume(label.label).array, expected)
    assert rita.post(url, json={"choose": "reading", "n": 1}).status_code == 404 and broken(project) == []


def test_time_of_reviewers_is_measured_and_told(site: WebServer) -> None:
    """Events of a review give its minutes by the rules of readers' time; the report counts what was not timed."""
    from redraft.quality import quality_report

    rita, project = site.sign_in("rita"), site.project
    first, second = rita.get("/api/reviews").json()
    events = [{"kind": "open", "ms": 0}, *({"kind": "input", "ms": ms} for ms in range(0, 120_001, 5000))]
    batch = {"sitting": "s1", "number": 0, "sent_ms": 120_000, "events": events}
    for _ in range(2):
        assert rita.post(f"/api/reviews/{first['review_id']}/time", json=batch).json() == {"received": 0}
    assert rita.post(f"/api/reviews/{first['review_id']}/time", json={"sitting": "s1"}).status_code == 422
    for review in (first, second):
        rita.post(f"/api/reviews/{review['review_id']}", json={"decision": "accept"})
    looks = quality_report(project)["second_looks"]
    assert (looks["decided"], looks["timed"]) == (2, 1) and looks["active_minutes"] == pytest.approx(2.0, abs=0.05)
    # Rita reads nothing here: `dispatch.reviewer_role` says whose rate pays for her.
    rate = next(r.per_hour for r in project.rates.rates if r.role == "radiologist")
    assert looks["unpriced"] == 0 and float(looks["cost"]) == pytest.approx(float(rate) * 2 / 60, abs=0.5)


def test_accepted_work_is_opened_again(site: WebServer) -> None:
    """A reviewer reopens by the annotation's id; what is in review cannot be opened twice."""
    accept_all(site)
    project, rita = site.project, site.sign_in("rita")
    reading = project.ledger.rows("annotation", state="valid")
    mine = next(row for row in reading if not row["assignment_id"].startswith("old-"))
    review = rita.post("/api/reviews", json={"annotation_id": mine["annotation_id"]}).json()["review_id"]
    assert [item["review_id"] for item in rita.get("/api/reviews").json()] == [review]
    assert rita.post("/api/reviews", json={"annotation_id": mine["annotation_id"]}).status_code == 409
    assert note(project, {"assignment_id": mine["assignment_id"]})["annotation_id"] == mine["annotation_id"]
