"""Every page: who may see it, what it says, by keyboard alone, and by the rules for contrast and names (axe)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.servers.web import WebServer
from tests.web.conftest import AXE, picture, sign_in, wait_until

OPEN = Callable[..., Any]
# Pages that need no viewer: whose, path, name of the picture.
PAGES = (
    (None, "/sign-in", "sign-in"),
    ("anna", "/", "work-list"),
    ("anna", "/me", "me"),
    ("anna", "/work/0123456789abcdef0123", "not-yours"),
    ("rita", "/reviews", "reviews"),
    ("rita", "/adjudications", "adjudications"),
    ("omar", "/ops", "ops"),
    ("ada", "/decisions", "decisions"),
)
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


def violations(page: Any) -> list[str]:
    """What axe finds wrong on a page, each with the elements it is about."""
    page.evaluate(AXE.read_text(encoding="utf-8"))  # evaluated, not injected: the page's policy allows no other script
    found = page.evaluate(
        "tags => axe.run(document, {runOnly: {type: 'tag', values: tags}, resultTypes: ['violations']})", RULES
    )
    return [f"{v['id']}: {v['help']}: {[node['html'][:120] for node in v['nodes']]}" for v in found["violations"]]


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_pages_meet_wcag_aa(site: WebServer, open_page: OPEN, theme: str) -> None:
    """axe finds nothing on any page, neither in the dark nor in the light."""
    if not AXE.exists():
        pytest.skip("axe-core is absent: `npm ci` in app/web/ui")
    for login, path, name in PAGES:
        page = open_page(site, login, theme=theme)
        page.goto(path)
        picture(page, f"{name}-{theme}")
        assert violations(page) == [], f"{path} in the {theme}"
        page.context.close()


def test_every_control_is_reached_by_keyboard(site: WebServer, open_page: OPEN) -> None:
    """Tab visits every link, button and field in the order of the page, shows where it is, and gets out again."""
    for login, path, _ in PAGES:
        page = open_page(site, login)
        page.goto(path)
        page.evaluate("document.body.tabIndex = -1; document.body.focus(); document.body.removeAttribute('tabindex')")
        wanted = page.evaluate(
            "[...document.querySelectorAll('a[href], button:not([disabled]), input:not([type=hidden]), select, "
            'textarea, [tabindex="0"], summary\')].filter(e => e.checkVisibility()).length'
        )
        visited = []
        for _ in range(wanted + 1):
            page.keyboard.press("Tab")
            here = page.evaluate(
                "(() => { const e = document.activeElement; if (e === document.body) return null;"
                " const s = getComputedStyle(e);"
                " return [[...document.querySelectorAll('*')].indexOf(e), s.outlineStyle, e.outerHTML] })()"
            )
            if here is None:
                break
            visited.append(here)
        places = [place for place, _, _ in visited]
        assert len(visited) == wanted and places == sorted(set(places)), f"{path}: {visited}"
        assert all(outline != "none" for _, outline, _ in visited), f"{path}: the focus cannot be seen: {visited}"
        page.context.close()


def test_signing_in_and_out_by_keyboard(site: WebServer, open_page: OPEN) -> None:
    """A reader signs in, opens the first exam's link and signs out without a mouse; back shows no work list."""
    page = open_page(site)
    page.goto("/")
    assert page.url.endswith("/sign-in")
    wait_until(page, "document.activeElement.id === 'login'")
    page.keyboard.type("anna")
    page.keyboard.press("Tab")
    page.keyboard.type("a long enough sentence")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Your work").wait_for()
    page.get_by_role("button", name="Sign out").focus()
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Sign in").wait_for()
    page.go_back()
    page.get_by_role("heading", name="Sign in").wait_for()
    assert page.get_by_role("heading", name="Your work").count() == 0


def test_the_work_list_says_what_waits_and_why(site: WebServer, open_page: OPEN) -> None:
    """One entry per open assignment of this reader, by deadline; modes in words; nobody else's exams."""
    page = open_page(site, "anna")
    own = {row["assignment_id"]: row for row in site.project.ledger.rows("assignment", reader_id="reader-1", round=2)}
    links = page.locator("ol.work a.button").evaluate_all("links => links.map(link => link.getAttribute('href'))")
    assert sorted(links) == sorted(f"/work/{name}" for name in own)
    titles = page.locator("ol.work h2").all_inner_texts()
    assert titles.count("A draft to correct") == sum(row["mode"] == "assisted" for row in own.values())
    assert titles.count("To draw from scratch") == sum(row["mode"] == "from_scratch" for row in own.values())
    text = page.locator("main").inner_text()
    assert "kidney tumor" in text and "reference exam" in text and "in 13 days" in text
    assert "subject" not in page.content() and "UTC" not in text  # the browser's own time zone


def test_another_readers_exam_does_not_exist(site: WebServer, open_page: OPEN) -> None:
    """The page of ben's exam and of one that nobody has answer anna alike: 404, in words, without the exam's data."""
    foreign = site.project.ledger.rows("assignment", reader_id="reader-2", round=2)[0]
    page = open_page(site, "anna")
    texts = []
    for name in (foreign["assignment_id"], "0" * 20):
        answer = page.goto(f"/work/{name}")
        assert answer.status == 404
        assert foreign["exam_id"] not in page.content()
        texts.append(page.locator("main").inner_text())
    assert texts[0] == texts[1] and "assigned to you" in texts[0]


def test_pages_of_other_roles_are_refused(site: WebServer) -> None:
    """A reader gets no operations page and no queue, a reviewer no work list; without signing in there is nothing."""
    anna, rita, nobody = site.sign_in("anna"), site.sign_in("rita"), site.client()
    assert [anna.get(path).status_code for path in ("/", "/me", "/reviews", "/ops")] == [200, 200, 403, 403]
    assert [rita.get(path).status_code for path in ("/reviews", "/me", "/ops")] == [200, 403, 403]
    assert rita.get("/").headers["location"] == "/reviews"
    for path in ("/", "/me", "/ops", "/reviews", "/work/x"):
        answer = nobody.get(path)
        assert answer.status_code == 303 and answer.headers["location"].startswith("/sign-in")
    for path in ("/api/people/me", "/api/ops"):
        assert nobody.get(path).status_code == 401


def test_a_link_to_an_exam_survives_signing_in(site: WebServer, open_page: OPEN) -> None:
    """Whoever opens a link without being signed in is there after signing in."""
    work = site.project.ledger.rows("assignment", reader_id="reader-1", round=2)[0]["assignment_id"]
    page = open_page(site)
    page.goto(f"/work/{work}")
    assert "/sign-in?next=" in page.url
    sign_in(page, "anna", next=f"/work/{work}")
    assert page.url == f"{site.url}/work/{work}"
