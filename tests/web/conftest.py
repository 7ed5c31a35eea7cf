"""A real server with real pages in a real browser: accounts, a dispatched round, Chromium, screenshots."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from redraft.project import Project
from tests.servers.web import PASSWORD, WebServer, running_web
from tests.web.made import make_round

REPOSITORY = Path(__file__).resolve().parents[2]
CHROMIUM = Path("/usr/bin/chromium")
UI = REPOSITORY / "app" / "web" / "static" / "dist" / "work.js"
AXE = REPOSITORY / "app" / "web" / "ui" / "node_modules" / "axe-core" / "axe.min.js"
SCREENSHOTS = REPOSITORY / "artefacts" / "screenshots"
FLAGS = [
    "--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
# login: roles, reader. Nobody here is both the reader and the reviewer of one exam.
PEOPLE: dict[str, tuple[tuple[str, ...], str | None]] = {
    "anna": (("reader",), "reader-1"),
    "ben": (("reader",), "reader-2"),
    "rita": (("reviewer",), None),
    "omar": (("ops",), None),
    "ada": (("approver",), None),
}


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project, made once; every test takes a copy."""
    project = make_round(tmp_path_factory.mktemp("made") / "kidneys")
    project.ledger.engine.dispose()  # the last connection empties the log into the file
    return project.root


@pytest.fixture
def project(made: Path, tmp_path: Path) -> Project:
    """A copy of the project with its round out with two readers."""
    shutil.copytree(made, tmp_path / "kidneys", symlinks=True)
    return Project.open(tmp_path / "kidneys")


@pytest.fixture
def site(project: Project) -> Iterator[WebServer]:
    """Its pages, and everybody's account."""
    with running_web(project, sweep_command=["true"]) as server:
        for login, (roles, reader) in PEOPLE.items():
            server.add(login, *roles, reader=reader)
        yield server


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """Chromium, headless, WebGL2 in software; skips where it is absent."""
    if not CHROMIUM.exists():
        pytest.skip("pages are tested in Debian's chromium: /usr/bin/chromium is absent (apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: Any) -> Iterator[Callable[..., Any]]:
    """Makes a page of a browser of its own: `open_page(site, "anna")` is signed in as anna.

    At the end of the test, every request of every page must have gone to its own server, and no script have failed.
    """
    contexts: list[Any] = []
    foreign: list[str] = []
    failed: list[str] = []

    def make(site: WebServer, login: str | None = None, *, theme: str = "dark", **settings: Any) -> Any:
        size = settings.pop("viewport", {"width": 1360, "height": 850})
        context = chromium.new_context(base_url=site.url, color_scheme=theme, viewport=size, locale="en-GB", **settings)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(15_000)

        def asked(request: Any) -> None:
            parts = urlsplit(request.url)
            if parts.scheme not in ("blob", "data") and f"{parts.scheme}://{parts.netloc}" != site.url:
                foreign.append(request.url)

        context.on("request", asked)
        page.on("pageerror", lambda error: failed.append(str(error)))
        if login is not None:
            sign_in(page, login)
        return page

    yield make
    for context in contexts:
        context.close()
    assert not foreign, f"requests left the server's origin: {foreign}"
    assert not failed, f"scripts failed: {failed}"


def sign_in(page: Any, login: str, next: str = "/") -> None:
    """Sign in with the form."""
    page.goto(f"/sign-in?next={next}")
    page.get_by_label("Login").fill(login)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(lambda url: "/sign-in" not in url)


def wait_until(page: Any, expression: str, seconds: float = 20) -> None:
    """Wait until an expression holds in the page. Playwright's own waiting evaluates text, which the policy refuses."""
    deadline = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, f"this did not come true: {expression}"
        page.wait_for_timeout(50)


def picture(page: Any, name: str, **settings: Any) -> None:
    """A screenshot for people to look at, in artefacts/screenshots/."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=str(SCREENSHOTS / f"{name}.png"), **settings)


@pytest.fixture
def with_ui() -> None:
    """Skips where the workstation was not built."""
    if not UI.exists():
        pytest.skip("the workstation is not built: `make ui` (needs Node.js)")
