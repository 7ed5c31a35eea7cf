"""The workstation where something is in the way: time that ran out, a page loaded anew, two tabs, no WebGL2, sleep."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from redraft.project import Project
from tests.servers.web import WebServer
from tests.web.conftest import CHROMIUM, picture, sign_in, wait_until
from tests.web.test_pages import violations
from tests.web.test_workstation import (
    READY,
    answer,
    go_to,
    hand_in,
    open_exam,
    point,
    result_of,
    saved,
    shown,
    stored,
    work_on,
)  # fmt: skip

OPEN = Callable[..., Any]
SPOT, OTHER = (20, 60, 11), (26, 60, 11)

pytestmark = pytest.mark.usefixtures("with_ui")


def lease(project: Project, work: str, expires: datetime) -> None:
    """The reader's time on the exam ends then."""
    with project.ledger.tx("test") as tx:
        if tx.one("work_lease", assignment_id=work) is None:
            row = {"assignment_id": work, "expires_at": expires, "extensions": 0, "state": "held"}
            tx.insert("work_lease", row)
        else:
            tx.update("work_lease", {"assignment_id": work}, {"expires_at": expires})


def paint(page: Any, voxel: tuple[int, int, int]) -> None:
    """A dab of the pen."""
    go_to(page, SPOT)
    page.keyboard.press("p")
    page.mouse.click(*point(page, "axial", voxel))


def ran_out(site: WebServer, page: Any, work: str) -> None:
    """A dab is saved; then the time is over, and another dab is not."""
    lease(site.project, work, datetime.now(UTC) + timedelta(hours=1))
    open_exam(page, work)
    paint(page, SPOT)
    saved(page)
    lease(site.project, work, datetime.now(UTC) - timedelta(seconds=1))
    paint(page, OTHER)
    page.keyboard.press("Control+s")
    page.locator("#save").get_by_text("The time for this exam ran out").wait_for()


def test_time_that_ran_out_is_extended_and_nothing_is_lost(site: WebServer, open_page: OPEN) -> None:
    """The page says that the time is over and asks; with more time the work is saved and handed in as drawn."""
    work, login = work_on(site.project, "axial")
    page = open_page(site, login)
    ran_out(site, page, work)
    shape = nib.load(site.project.work / work / "image.nii.gz").shape
    painted = shown(page, shape)
    page.get_by_role("button", name="What now?").click()
    page.get_by_role("heading", name="The time for this exam ran out").wait_for()
    assert violations(page) == []
    picture(page, "workstation-expired")
    answer(page, "Ask for more time")
    wait_until(page, "workstation.save.clean && workstation.save.state === 'saved'")
    assert np.array_equal(stored(page, work, shape), painted)
    hand_in(page, "s")
    assert result_of(site.project, work)[0]["verdict"] == "correct"


@pytest.mark.parametrize(
    ("choice", "keeps"), [("Go on with it", True), ("Add it where nothing is drawn", True), ("Leave it", False)]
)
def test_kept_work_is_offered_on_another_computer(site: WebServer, open_page: OPEN, choice: str, keeps: bool) -> None:
    """What came too late is offered when the exam is opened again elsewhere: taken, added or left, and once only."""
    work, login = work_on(site.project, "axial")
    page = open_page(site, login)
    ran_out(site, page, work)
    shape = nib.load(site.project.work / work / "image.nii.gz").shape
    late, before = shown(page, shape), stored(page, work, shape)
    assert not np.array_equal(late, before)
    page.context.close()
    lease(site.project, work, datetime.now(UTC) + timedelta(hours=1))
    other = open_page(site, login)
    other.goto(f"/work/{work}")
    wait_until(other, "document.querySelector('dialog[open]') !== null")
    if other.get_by_role("heading", name="This exam is open in another tab").count():
        answer(other, "Take over here")
    other.get_by_role("heading", name="Work on this exam was kept").wait_for()
    picture(other, "workstation-kept-work")
    answer(other, choice)
    wait_until(other, f"{READY} && document.querySelector('dialog[open]') === null")
    # The pen of this test only adds, so "add" and "go on" give the same.
    expected = late if keeps else before
    wait_until(other, f"workstation.editor.mask.reduce((sum, one) => sum + one, 0) === {int(expected.sum())}")
    wait_until(other, "workstation.save.clean && workstation.save.state === 'saved'")
    assert np.array_equal(shown(other, shape), expected)
    assert np.array_equal(stored(other, work, shape), expected)
    paint(other, (32, 60, 11))
    saved(other)
    other.reload()
    wait_until(other, READY)
    assert other.locator("dialog[open]").count() == 0


def test_a_page_that_is_loaded_again_goes_on_at_once(site: WebServer, open_page: OPEN) -> None:
    """A reload asks nothing and keeps the pen; a second tab of the same browser is asked."""
    work, login = work_on(site.project, "axial")
    page = open_page(site, login)
    open_exam(page, work)
    shape = nib.load(site.project.work / work / "image.nii.gz").shape
    paint(page, SPOT)
    saved(page)
    painted = shown(page, shape)
    for _ in range(2):
        page.reload()
        wait_until(page, READY)
        assert np.array_equal(shown(page, shape), painted)
    paint(page, OTHER)
    saved(page)
    with page.context.expect_page() as opened:  # a tab that is opened from this one begins with a copy of its store
        page.evaluate("window.open(location.href) !== null")
    second = opened.value
    second.get_by_role("heading", name="This exam is open in another tab").wait_for()


def test_signing_out_on_the_exam_saves_first(site: WebServer, open_page: OPEN) -> None:
    """The page says who is signed in; what was drawn a moment ago is on the server before the session ends."""
    work, login = work_on(site.project, "axial")
    page = open_page(site, login)
    open_exam(page, work)
    shape = nib.load(site.project.work / work / "image.nii.gz").shape
    paint(page, SPOT)
    painted = shown(page, shape)
    assert f"Dr. {login.title()}" in page.locator("header.top").inner_text()
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/sign-in**")
    again = open_page(site, login)
    assert np.array_equal(stored(again, work, shape), painted)


def test_the_picture_does_not_move_when_words_change(site: WebServer, open_page: OPEN) -> None:
    """Whatever the page says of saving and of what it did, the views stay where they are, also on a narrow screen."""
    work, login = work_on(site.project, "axial")
    page = open_page(site, login, viewport={"width": 1100, "height": 700})
    open_exam(page, work)
    view = page.locator("[data-plane=axial] canvas")
    before = view.bounding_box()
    paint(page, SPOT)
    saved(page)
    page.keyboard.press("i")  # says what it filled in, or that there is no gap
    wait_until(page, "document.getElementById('say').textContent !== ''")
    assert view.bounding_box() == before
    lease(site.project, work, datetime.now(UTC) - timedelta(seconds=1))
    paint(page, OTHER)
    page.keyboard.press("Control+s")
    page.get_by_role("button", name="What now?").wait_for()
    assert view.bounding_box() == before
    assert page.evaluate("document.documentElement.scrollWidth") <= 1100
    save, button = page.locator("#save").bounding_box(), page.locator("#save button").bounding_box()
    assert save["x"] <= button["x"] and button["x"] + button["width"] <= save["x"] + save["width"], "cut off"
    picture(page, "workstation-narrow")


def test_the_help_begins_at_its_beginning(site: WebServer, open_page: OPEN) -> None:
    """The keys are read from the top, also where they do not fit; Escape closes them."""
    work, login = work_on(site.project, "axial")
    page = open_page(site, login, viewport={"width": 1000, "height": 500})
    open_exam(page, work)
    page.keyboard.press("?")
    page.locator("dialog[open]").wait_for()
    box = "document.querySelector('dialog')"
    assert page.evaluate(f"{box}.scrollHeight > {box}.clientHeight && {box}.scrollTop === 0")
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0


def test_after_sleep_a_new_sitting_begins(site: WebServer, open_page: OPEN) -> None:
    """Where the wall clock ran on and the page's clock stood, the night is nobody's time: two sittings, few minutes."""
    work, login = work_on(site.project, "axial")
    page = open_page(site, login)
    open_exam(page, work)
    page.mouse.move(300, 300)
    page.evaluate("(() => { const now = Date.now.bind(Date); Date.now = () => now() + 8 * 3600e3; })()")
    page.wait_for_timeout(1500)
    page.mouse.move(340, 300)
    hand_in(page, "a")
    rows = site.project.ledger.rows("time_batch", assignment_id=work)
    assert len({row["sitting"] for row in rows}) == 2
    for sitting in {row["sitting"] for row in rows}:
        numbers = sorted(row["number"] for row in rows if row["sitting"] == sitting)
        assert numbers == list(range(1, len(numbers) + 1))
    minutes = result_of(site.project, work)[0]["minutes"]
    assert sum(sum(part.values()) for part in minutes.values()) < 2


@pytest.fixture
def without_webgl(chromium: Any) -> Iterator[Any]:
    """Another Chromium, which has no WebGL at all."""
    flags = ["--no-sandbox", "--disable-gpu", "--disable-3d-apis", "--disable-background-networking"]
    browser = chromium.browser_type.launch(executable_path=str(CHROMIUM), args=flags)
    yield browser
    browser.close()


def test_without_webgl_the_page_says_so_and_works(site: WebServer, without_webgl: Any) -> None:
    """No WebGL2: clear words in place of the volume; reading, drawing, saving and handing in go on as ever."""
    work, login = work_on(site.project, "axial")
    context = without_webgl.new_context(base_url=site.url, viewport={"width": 1360, "height": 850})
    page = context.new_page()
    failed: list[str] = []
    page.on("pageerror", lambda error: failed.append(str(error)))
    sign_in(page, login)
    assert page.evaluate("document.createElement('canvas').getContext('webgl2') === null")
    open_exam(page, work)
    page.get_by_text("this browser has no WebGL2").wait_for()
    page.keyboard.press("t")
    assert page.get_by_text("this browser has no WebGL2").is_visible()
    paint(page, SPOT)
    saved(page)
    picture(page, "workstation-no-webgl")
    hand_in(page, "s")
    assert result_of(site.project, work)[0]["verdict"] == "correct"
    assert not failed
    context.close()
