"""The workstation in a real browser: what is painted is what is stored, and what is measured is what was worked."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray
from sqlalchemy import delete

from redraft.desk.store import web_session
from redraft.project import Project
from redraft.signing import verify_result
from redraft.volumes import read_volume
from tests.servers.web import WebServer, running_web
from tests.web.conftest import PEOPLE, picture, sign_in, wait_until
from tests.web.made import exam_name
from tests.web.test_pages import violations

OPEN = Callable[..., Any]
Mask = NDArray[np.uint8]
READERS = {reader: login for login, (_, reader) in PEOPLE.items() if reader}
READY = "window.workstation?.marks.ready !== undefined"

pytestmark = pytest.mark.usefixtures("with_ui")


def work_on(project: Project, exam: str) -> tuple[str, str]:
    """The assignment of an exam, and who has it."""
    row = project.ledger.rows("assignment", exam_id=exam_name(exam), round=2)[0]
    return row["assignment_id"], READERS[row["reader_id"]]


def open_exam(page: Any, work: str) -> None:
    """Open the workstation and wait until image and mask are there."""
    page.goto(f"/work/{work}")
    wait_until(page, READY)


def shown(page: Any, shape: tuple[int, int, int]) -> Mask:
    """The mask on the screen, in the image's voxel order."""
    values = page.evaluate("btoa(new TextDecoder('latin1').decode(workstation.editor.mask))")
    import base64

    return np.frombuffer(base64.b64decode(values), np.uint8).reshape(shape, order="F")


def stored(page: Any, work: str, shape: tuple[int, int, int]) -> Mask:
    """The newest save as the server gives it."""
    reply = page.request.get(f"/api/work/{work}/mask")
    assert reply.ok, reply.text()
    body = reply.body()
    raw = gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body
    return np.frombuffer(raw, np.uint8).reshape(shape, order="F")


def point(page: Any, view: str, voxel: tuple[int, int, int]) -> tuple[float, float]:
    """Where on the page the centre of a voxel (left, back and foot count from 0) lies in a view."""
    x, y = page.evaluate(
        """([view, voxel]) => {
          const pane = workstation.scene.panes.find((one) => one.plane.name === view);
          const box = pane.canvas.getBoundingClientRect(), [x, y] = pane.place(voxel);
          return [box.left + x / pane.ratio, box.top + y / pane.ratio];
        }""",
        [view, list(voxel)],
    )
    return float(x), float(y)


def go_to(page: Any, voxel: tuple[int, int, int]) -> None:
    """Put the crosshair on a voxel, with the keys a reader has for it: by the scene's own way."""
    page.evaluate("voxel => workstation.scene.moveTo(voxel)", list(voxel))


def disc(image: Any, voxel: tuple[int, int, int], radius: float) -> NDArray[np.bool_]:
    """Voxels of an axial disc in the array's own order, reckoned with nibabel, which knows each axis by R, A or S.

    A voxel belongs to the disc when its centre lies within `radius` mm of the centre's, along the grid's own axes.
    """
    orientation = nib.orientations.io_orientation(image.affine)
    inside = np.ones(image.shape, bool)
    distance = np.zeros(image.shape)
    spacing = voxel_sizes(image.affine)
    for axis, (world, sign) in enumerate(orientation):
        at = voxel[int(world)] if sign > 0 else image.shape[axis] - 1 - voxel[int(world)]
        steps = np.arange(image.shape[axis]) - at
        along = steps.reshape([-1 if n == axis else 1 for n in range(3)])
        if int(world) == 2:
            inside &= along == 0
        else:
            distance = distance + (along * spacing[axis]) ** 2
    return inside & (distance <= radius**2)


def saved(page: Any) -> None:
    """Save now, and wait until the server has confirmed everything."""
    page.keyboard.press("Control+s")
    wait_until(page, "workstation.save.clean && workstation.save.state === 'saved'")


def answer(page: Any, words: str) -> None:
    """Answer a question. It does not take a click in its first moments: that was meant for what was there before."""
    page.wait_for_timeout(600)
    page.get_by_role("button", name=words).click()


def now(page: Any) -> float:
    """Seconds of the page's clock."""
    return float(page.evaluate("performance.now() / 1000"))


def stood_at(page: Any) -> float:
    """When the page stood before its reader, in seconds of its clock: what it took to come is not reading."""
    return float(page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd / 1000"))


def hand_in(page: Any, key: str, reason: str | None = None) -> float:
    """Say the verdict by its key, answer the question, wait for the end.

    Returns when the answer was given, in seconds of the page's clock: what the server takes is not reading.
    """
    page.keyboard.press(key)
    dialog = page.locator("dialog[open]")
    dialog.wait_for()
    if reason is not None:
        dialog.locator(f'input[value="{reason}"]').check()
    time.sleep(0.6)  # a question does not take a key or a click that was meant for what was there before
    answered = now(page)
    dialog.locator("button.main, button.danger").first.click()
    page.get_by_role("heading", name="Done").wait_for()
    return answered


def result_of(project: Project, work: str) -> tuple[dict[str, Any], str | None]:
    """The signed result in the package, verified, and the label's digest."""
    from redraft.digest import sha256_file

    folder = project.work / work
    result = json.loads((folder / "result.json").read_text())
    label = folder / "label.nii.gz"
    digest = sha256_file(label) if label.exists() else None
    assert verify_result(project.checked_keys, result, digest)
    assert result["origin"] == "measured"
    return result, digest


@pytest.mark.parametrize("exam", ["axial", "oblique"])
def test_what_is_painted_is_stored_voxel_for_voxel(
    site: WebServer, open_page: OPEN, exam: str, request: pytest.FixtureRequest
) -> None:
    """Pen at a point, undo, a stroke, save, hand in: screen, autosave and label are one mask, and the one painted."""
    project = site.project
    work, login = work_on(project, exam)
    folder = project.work / work
    image, draft = nib.load(folder / "image.nii.gz"), read_volume(folder / "draft.nii.gz").array
    page = open_page(site, login)
    open_exam(page, work)
    assert np.array_equal(shown(page, image.shape), draft)
    spot, elsewhere = (20, 60, 11), (70, 62, 11)
    go_to(page, spot)
    page.keyboard.press("p")
    page.mouse.click(*point(page, "axial", elsewhere))
    assert not np.array_equal(shown(page, image.shape), draft)
    page.keyboard.press("z")
    assert np.array_equal(shown(page, image.shape), draft), "undo did not take the stroke back"
    page.mouse.click(*point(page, "axial", spot))
    expected = draft.copy()
    expected[disc(image, spot, 5.0)] = 1
    assert np.array_equal(shown(page, image.shape), expected), "the pen painted other voxels than those under it"
    saved(page)
    assert np.array_equal(stored(page, work, image.shape), expected)
    # A stroke in another plane, with the other structure: whatever it covers, the same must be everywhere.
    page.keyboard.press("2")
    start, end = point(page, "coronal", (30, 60, 11)), point(page, "coronal", (50, 60, 15))
    page.mouse.move(*start)
    page.mouse.down()
    page.mouse.move(*end, steps=12)
    page.mouse.up()
    painted = shown(page, image.shape)
    assert (painted == 2).sum() > (draft == 2).sum() + 20
    assert np.array_equal(painted[expected > 0], expected[expected > 0]), "protected voxels were overwritten"
    page.wait_for_timeout(300)
    picture(page, f"workstation-{exam}")
    hand_in(page, "s")
    label = nib.load(folder / "label.nii.gz")
    assert np.array_equal(np.asanyarray(label.dataobj), painted)
    assert np.allclose(label.affine, image.affine, atol=1e-4)
    result, _ = result_of(project, work)
    assert result["verdict"] == "correct"
    assert result["voxels_changed"] == int((painted != draft).sum())
    assert result["minutes"]["kidney"]["active"] > 0


def test_accepting_hands_in_the_draft_as_it_is(site: WebServer, open_page: OPEN) -> None:
    """Accept: the label is the draft, the verdict says so, the work list shows it as handed in."""
    work, login = work_on(site.project, "fourth")
    page = open_page(site, login)
    open_exam(page, work)
    hand_in(page, "a")
    folder = site.project.work / work
    assert np.array_equal(read_volume(folder / "label.nii.gz").array, read_volume(folder / "draft.nii.gz").array)
    assert result_of(site.project, work)[0]["verdict"] == "accept"
    page.goto("/")
    assert page.locator(f'a[href="/work/{work}"]').count() == 0
    assert "being checked" in page.locator("main").inner_text()


def test_rejecting_sends_the_exam_back_with_a_reason(site: WebServer, open_page: OPEN) -> None:
    """Reject without a segmentation: no label, the reason's code, and the remark stays in the package."""
    work, login = work_on(site.project, "axial")
    page = open_page(site, login)
    open_exam(page, work)
    page.keyboard.press("Shift+r")
    dialog = page.locator("dialog[open]")
    dialog.wait_for()
    picture(page, "workstation-reject")
    dialog.locator("textarea").fill("Motion in every slice.")
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0
    assert not (site.project.work / work / "result.json").exists()
    hand_in(page, "Shift+r", reason="poor_image")
    result, digest = result_of(site.project, work)
    assert (result["verdict"], result["reason_code"], result["no_label"], digest) == (
        "reject",
        "poor_image",
        True,
        None,
    )


def test_a_draft_is_never_sent_where_none_is_to_be_seen(site: WebServer, open_page: OPEN) -> None:
    """From scratch: no request brings a draft into the browser; the protocol's text stands beside the image."""
    work, login = work_on(site.project, "scratch")
    page = open_page(site, login)
    bodies: list[str] = []
    page.on("response", lambda answer: bodies.append(answer.url) if answer.ok and "/api/" in answer.url else None)
    open_exam(page, work)
    assert not any("draft" in url or "/mask" in url for url in bodies)
    assert page.request.get(f"/api/work/{work}/draft").status == 404
    image = nib.load(site.project.work / work / "image.nii.gz")
    assert not shown(page, image.shape).any()
    assert "renal sinus" in page.locator("#side").inner_text()
    picture(page, "workstation-from-scratch")


@contextmanager
def served(project: Project, port: int) -> Iterator[subprocess.Popen[str]]:
    """`redraft serve` as a process of its own, which can be killed."""
    command = [sys.executable, "-m", "app.cli.main", "serve", "--project", str(project.root), "--port", str(port)]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True, env=dict(os.environ)
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            assert process.poll() is None and time.monotonic() < deadline, "the server did not start"
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield process
    finally:
        process.kill()
        process.wait()


def test_a_killed_server_loses_nothing(project: Project, open_page: OPEN) -> None:
    """kill -9 while drawing: the page says so and goes on; when the server is back, everything is there."""
    work, login = work_on(project, "axial")
    with running_web(project, sweep_command=["true"]) as site:
        port = int(site.url.rpartition(":")[2])
        for name, (roles, reader) in PEOPLE.items():
            site.add(name, *roles, reader=reader)
    project.ledger.engine.dispose()
    shape = nib.load(project.work / work / "image.nii.gz").shape
    with served(project, port) as server:
        page = open_page(site, login)
        open_exam(page, work)
        go_to(page, (20, 60, 11))
        page.keyboard.press("p")
        page.mouse.click(*point(page, "axial", (20, 60, 11)))
        saved(page)
        os.kill(server.pid, signal.SIGKILL)
        server.wait()
        page.mouse.click(*point(page, "axial", (26, 60, 11)))
        page.keyboard.press("Control+s")
        page.locator("#save").get_by_text("Offline: kept on this computer").wait_for()
        page.mouse.click(*point(page, "axial", (32, 60, 11)))
        picture(page, "workstation-offline")
        painted = shown(page, shape)
    with served(project, port):
        wait_until(page, "workstation.save.clean && workstation.save.state === 'saved'", 40)
        assert np.array_equal(stored(page, work, shape), painted)
        # On another computer: another browser, nothing kept there.
        other = open_page(site, login)
        other.goto(f"/work/{work}")
        other.get_by_role("heading", name="This exam is open in another tab").wait_for()
        picture(other, "workstation-two-tabs")
        answer(other, "Take over here")
        wait_until(other, READY)
        assert np.array_equal(shown(other, shape), painted)


def test_an_ended_session_loses_nothing(site: WebServer, open_page: OPEN) -> None:
    """Signed out while drawing: the page says that work is kept here; after signing in it is on the server."""
    work, login = work_on(site.project, "axial")
    page = open_page(site, login)
    open_exam(page, work)
    shape = nib.load(site.project.work / work / "image.nii.gz").shape
    go_to(page, (20, 60, 11))
    page.keyboard.press("p")
    with site.project.desk.write() as desk:
        desk.execute(delete(web_session))
    page.mouse.click(*point(page, "axial", (20, 60, 11)))
    painted = shown(page, shape)
    page.keyboard.press("Control+s")
    page.locator("#save").get_by_text("Signed out: kept on this computer").wait_for()
    picture(page, "workstation-signed-out")
    page.reload()
    page.wait_for_url(re.compile("/sign-in"))
    sign_in(page, login, next=f"/work/{work}")
    page.get_by_role("heading", name="Go on where you stopped?").wait_for()
    answer(page, "Go on with them")
    wait_until(page, READY)  # the tab still holds the pen: nobody is asked about another one
    assert np.array_equal(shown(page, shape), painted)
    saved(page)
    assert np.array_equal(stored(page, work, shape), painted)


def test_minutes_are_the_scripted_active_time(site: WebServer, open_page: OPEN) -> None:
    """Work, pause, work: active minutes are those of the script within 2 s; the pause is idle (thresholds of 3 s)."""
    work, login = work_on(site.project, "axial")
    page = open_page(site, login)
    page.goto(f"/work/{work}")
    wait_until(page, "window.workstation?.time !== undefined")
    acts = [stood_at(page)]

    def at_work(seconds: float) -> None:
        until = time.monotonic() + seconds
        n = 0
        while time.monotonic() < until or not page.evaluate(READY):
            n += 1
            page.mouse.move(300 + n % 2 * 40, 300)
            acts.append(now(page))
            page.wait_for_timeout(250)

    at_work(4)
    page.wait_for_timeout(6000)
    at_work(3)
    acts.append(hand_in(page, "a"))
    gaps = np.diff(acts)
    active = float(gaps[gaps <= 3].sum())
    minutes = result_of(site.project, work)[0]["minutes"]
    measured = {state: 60 * sum(part[state] for part in minutes.values()) for state in ("active", "idle", "away")}
    assert measured["active"] == pytest.approx(active, abs=2)
    assert measured["idle"] == pytest.approx(float(gaps[gaps > 3].sum()), abs=2)
    assert measured["away"] < 1


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_the_workstation_meets_wcag_aa(site: WebServer, open_page: OPEN, theme: str) -> None:
    """axe finds nothing on the workstation, its help and its questions."""
    work, login = work_on(site.project, "axial")
    page = open_page(site, login, theme=theme)
    open_exam(page, work)
    assert violations(page) == []
    page.keyboard.press("?")
    page.locator("dialog[open]").wait_for()
    picture(page, f"workstation-keys-{theme}")
    assert violations(page) == []
    page.keyboard.press("Escape")
    page.keyboard.press("Shift+r")
    page.locator("dialog[open]").wait_for()
    assert violations(page) == []


def test_a_correction_by_keyboard_alone(site: WebServer, open_page: OPEN) -> None:
    """Draw, undo, redo, look at uncertain slices and hand in without a mouse; Tab reaches every control."""
    work, login = work_on(site.project, "axial")
    page = open_page(site, login)
    open_exam(page, work)
    shape = nib.load(site.project.work / work / "image.nii.gz").shape
    before = shown(page, shape)
    page.keyboard.press("u")
    page.keyboard.press("p")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    painted = shown(page, shape)
    assert not np.array_equal(painted, before)
    page.keyboard.press("z")
    assert np.array_equal(shown(page, shape), before)
    page.keyboard.press("Shift+z")
    assert np.array_equal(shown(page, shape), painted)
    page.keyboard.press("s")
    page.locator("dialog[open]").wait_for()
    time.sleep(0.6)
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Done").wait_for()
    assert np.array_equal(read_volume(site.project.work / work / "label.nii.gz").array, painted)
