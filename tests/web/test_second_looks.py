"""Second looks and adjudication in a real browser: what is seen, what is decided and stored, how long it took."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from sqlalchemy import delete

from redraft.desk.store import tab
from redraft.look_times import look_minutes
from redraft.project import Project
from redraft.volumes import read_volume
from tests.servers.web import WebServer, running_web
from tests.tasks.validate.made_readings import receive
from tests.web.at_work import packed, put, submit
from tests.web.conftest import PEOPLE, picture, wait_until
from tests.web.made import SETTINGS, exam_name, make_round
from tests.web.test_pages import violations
from tests.web.test_workstation import READERS, answer, disc, go_to, open_exam, point, saved, shown

OPEN = Callable[..., Any]
Mask = NDArray[np.uint8]
TWICE = {
    "dispatch:\n": "dispatch:\n  training_double_read_share: 1.0\n",
    "gate:\n": "validate: {review_share: 1.0, min_seconds: 0}\n\n" + SETTINGS["gate:\n"],
}

pytestmark = pytest.mark.usefixtures("with_ui")


@pytest.fixture(scope="module")
def read_twice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose training exams two readers work on, and whose every reading a reviewer looks at; made once."""
    project = make_round(tmp_path_factory.mktemp("twice") / "kidneys", settings=TWICE)
    project.ledger.engine.dispose()
    return project.root


@pytest.fixture
def site(read_twice: Path, tmp_path: Path) -> Iterator[WebServer]:
    """The pages of a copy of it, and everybody's account."""
    shutil.copytree(read_twice, tmp_path / "kidneys", symlinks=True)
    with running_web(Project.open(tmp_path / "kidneys"), sweep_command=["true"]) as server:
        for login, (roles, reader) in PEOPLE.items():
            server.add(login, *roles, reader=reader)
        yield server


def readings(site: WebServer, exam: str, shifts: tuple[int, ...]) -> list[Mask]:
    """The draft moved by so many voxels, handed in by one reader after the other, and taken in."""
    project, drawn = site.project, []
    rows = sorted(project.ledger.rows("assignment", exam_id=exam_name(exam), round=2), key=lambda row: row["reader_id"])
    for row, shift in zip(rows, shifts, strict=False):
        client, url = site.sign_in(READERS[row["reader_id"]]), f"/api/work/{row['assignment_id']}"
        mask = np.roll(read_volume(project.work / row["assignment_id"] / "draft.nii.gz").array, shift, axis=0)
        assert put(client, url, packed(mask.astype(np.uint8)), 0).status_code == 200
        assert submit(client, url, 1, "correct").status_code == 200
        drawn.append(mask)
    with project.desk.write() as desk:
        desk.execute(delete(tab))  # those pages were closed long ago
    receive(project)
    return drawn


def open_look(page: Any, kind: str, identity: str) -> None:
    page.goto(f"/{kind}/{identity}")
    wait_until(page, "window.workstation?.marks.ready !== undefined")


def only_review(site: WebServer) -> str:
    (row,) = site.project.ledger.rows("review", state="open")
    return str(row["review_id"])


def decide(page: Any, words: str, confirm: str, reason: str | None = None, remark: str = "") -> None:
    """Press a button, answer its question, wait for the end."""
    page.locator("#verdicts").get_by_role("button", name=words).click()
    dialog = page.locator("dialog[open]")
    dialog.wait_for()
    if reason:
        dialog.locator(f'input[value="{reason}"]').check()
    if remark:
        dialog.locator("textarea").fill(remark)
    time.sleep(0.6)  # a question does not take a click that was meant for what was there before
    dialog.get_by_role("button", name=confirm).click()
    page.get_by_role("heading", name="Done").wait_for()


def test_a_review_is_accepted_and_its_time_is_measured(site: WebServer, open_page: OPEN) -> None:
    """The reader's label is shown as handed in, cannot be changed, is compared with the draft, and is accepted."""
    (label,) = readings(site, "axial", (2,))
    review = only_review(site)
    page = open_page(site, "rita")
    open_look(page, "reviews", review)
    assert np.array_equal(shown(page, label.shape), label)
    assert violations(page) == []
    assert "Dr. Rita" in page.locator("header.top").inner_text()
    assert not page.locator("#tools").is_visible()
    page.keyboard.press("p")
    page.mouse.click(*point(page, "axial", (20, 60, 11)))
    assert np.array_equal(shown(page, label.shape), label), "a reviewer changed a reader's label"
    page.keyboard.press("d")
    page.locator("#say").get_by_text("The draft as it was").wait_for()
    picture(page, "workstation-review")
    text = page.locator("body").inner_text()
    assert "reader-1" not in text and "reader-2" not in text and "Dr. Anna" not in text and "Dr. Ben" not in text
    for n in range(16):
        page.mouse.move(300 + n % 2 * 40, 300)
        page.wait_for_timeout(250)
    decide(page, "Accept", "Accept")
    project = site.project
    row = project.ledger.one("review", review_id=review)
    assert row is not None
    assert (row["state"], row["account_id"]) == ("accepted", site.accounts["rita"].account_id)
    spent = look_minutes(project.ledger, project.config.time)[review, site.accounts["rita"].account_id]
    assert 3 / 60 < spent["active"] < 1
    answer(page, "Back to the list")
    page.wait_for_url("**/reviews")
    assert page.locator(f'a[href="/reviews/{review}"]').count() == 0


def test_a_reading_is_returned_with_a_reason(site: WebServer, open_page: OPEN) -> None:
    """Nothing happens without a reason; with one, the reader finds reason and remark on the exam and goes on."""
    (label,) = readings(site, "axial", (2,))
    review = only_review(site)
    page = open_page(site, "rita")
    open_look(page, "reviews", review)
    page.keyboard.press("Shift+r")
    dialog = page.locator("dialog[open]")
    dialog.wait_for()
    assert violations(page) == []
    time.sleep(0.6)
    dialog.get_by_role("button", name="Return").click()
    page.locator("#say").get_by_text("Choose a reason.").wait_for()
    assert only_review(site) == review
    page.keyboard.press("Shift+r")
    reason = dialog.locator("input[name=reason]").first.get_attribute("value")
    page.keyboard.press("Escape")
    decide(page, "Return", "Return", reason=reason, remark="The left kidney lies two voxels off.")
    row = site.project.ledger.one("review", review_id=review)
    assert row is not None and (row["state"], row["reason_code"]) == ("returned", reason)
    note = site.project.ledger.one("annotation", annotation_id=row["annotation_id"])
    assert note is not None
    reader = open_page(site, READERS[note["reader_id"]])
    open_exam(reader, note["assignment_id"])
    assert "two voxels off" in reader.locator("#notes").inner_text()
    assert np.array_equal(shown(reader, label.shape), label), "the reader does not go on where they were"
    picture(reader, "workstation-returned")


def apart(site: WebServer) -> tuple[str, list[Mask]]:
    """The consensus of two readings that disagree, and the readings as they are numbered."""
    first, second = readings(site, "axial", (0, 9))
    rita = site.sign_in("rita")
    for row in site.project.ledger.rows("review", state="open"):
        assert rita.post(f"/api/reviews/{row['review_id']}", json={"decision": "accept"}).status_code == 200
    receive(site.project)
    (row,) = site.project.ledger.rows("consensus", state="to_adjudicate")
    notes = {n["annotation_id"]: n for n in site.project.ledger.rows("annotation", exam_id=row["exam_id"])}
    by_reader = {"reader-1": first, "reader-2": second}
    return row["consensus_id"], [by_reader[notes[one]["reader_id"]] for one in sorted(row["annotations"])]


def overlay(page: Any, shape: tuple[int, ...]) -> Mask:
    """What the overlay shows instead of the reader's own version."""
    values = page.evaluate("Array.from(workstation.scene.other.mask)")
    return np.array(values, np.uint8).reshape(shape, order="F")


def adjudicated(site: WebServer) -> tuple[dict[str, Any], Mask]:
    (row,) = site.project.ledger.rows("consensus", state="adjudicated")
    return row, np.rint(read_volume(site.project.root / row["path"]).array).astype(np.uint8)


def test_readings_are_compared_and_one_is_chosen(site: WebServer, open_page: OPEN) -> None:
    """Both readings and where they differ are shown as they are; the one that is taken counts."""
    consensus, masks = apart(site)
    page = open_page(site, "rita")
    open_look(page, "adjudications", consensus)
    assert page.locator("#back").get_attribute("href") == "/adjudications"
    assert violations(page) == []
    shape = masks[0].shape
    for words, expected in (
        ("Where the readings differ", (masks[0] != masks[1]).astype(np.uint8)),
        ("Reading A", masks[0]),
        ("Reading B", masks[1]),
    ):
        page.get_by_label("What the overlay shows").select_option(label=words)
        page.locator("#say").get_by_text(words).wait_for()
        assert np.array_equal(overlay(page, shape), expected), words
        picture(page, f"workstation-adjudication-{words.lower().replace(' ', '-')}")
    for n in range(6):  # input is told once a second: two are needed to make time
        page.mouse.move(300 + n % 2 * 40, 300)
        page.wait_for_timeout(400)
    decide(page, "Take reading B", "Take reading B")
    row, label = adjudicated(site)
    assert row["account_id"] == site.accounts["rita"].account_id
    assert np.array_equal(label, masks[1])
    key = (consensus, site.accounts["rita"].account_id)
    assert look_minutes(site.project.ledger, site.project.config.time)[key]["active"] > 0


def test_an_adjudicators_own_version_counts(site: WebServer, open_page: OPEN) -> None:
    """It is drawn on the consensus, saved by itself, found again after loading anew, and handed in exactly."""
    consensus, masks = apart(site)
    exam = exam_name("axial")
    image = nib.load(site.project.image(exam))
    page = open_page(site, "rita")
    open_look(page, "adjudications", consensus)
    start = shown(page, masks[0].shape)
    assert start.any()
    page.locator("#verdicts").get_by_role("button", name="Hand in own version").click()
    page.locator("#say").get_by_text("Nothing is changed yet.").wait_for()
    go_to(page, (20, 60, 11))
    page.keyboard.press("p")
    page.mouse.click(*point(page, "axial", (20, 60, 11)))
    expected = start.copy()
    expected[disc(image, (20, 60, 11), 5.0)] = 1
    assert np.array_equal(shown(page, start.shape), expected)
    saved(page)
    page.reload()
    wait_until(page, "window.workstation?.marks.ready !== undefined")
    assert np.array_equal(shown(page, start.shape), expected)
    assert "differ from the consensus" in page.locator("#changed").inner_text()
    picture(page, "workstation-adjudication-own")
    decide(page, "Hand in own version", "Hand in own version")
    assert np.array_equal(adjudicated(site)[1], expected)
