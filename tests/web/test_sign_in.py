"""Signing in over a real server: what a browser of somebody else, another site or a forged header can do is nothing."""

from __future__ import annotations

import re
import shutil
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.web.auth import local_path
from redraft.accounts import directory
from redraft.accounts.throttle import SHARED
from redraft.config.schema import TrustedProxy
from redraft.create import create_project
from redraft.errors import ConfigError
from redraft.project import Project
from tests.servers.certificates import Authority
from tests.servers.web import PASSWORD, WebServer, post_sign_in, running_web

NOW = datetime(2026, 3, 2, 8, 30, tzinfo=UTC)
SECRET = "between the proxy and redraft"
FORM = "application/x-www-form-urlencoded"


class Clock:
    """The server's time, moved by the test."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new project, made once."""
    project = create_project(tmp_path_factory.mktemp("new") / "kidneys", "kidney-ct", NOW, demo_keys=True)
    project.ledger.engine.dispose()
    return project.root


@pytest.fixture
def serve(template: Path, tmp_path: Path) -> Callable[..., AbstractContextManager[WebServer]]:
    """Serve a copy of the project with these settings of `web`."""
    shutil.copytree(template, tmp_path / "kidneys", symlinks=True)

    def call(clock: Callable[[], datetime] = Clock(), **settings: Any) -> AbstractContextManager[WebServer]:  # noqa: B008
        project = Project.open(tmp_path / "kidneys")
        web = project.config.web.model_copy(update={"sweep_minutes": 0, **settings})
        return running_web(replace(project, config=project.config.model_copy(update={"web": web})), clock=clock)

    return call


@pytest.fixture(scope="module")
def shared(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    """As `server`, for tests that change nothing which another one would notice."""
    root = tmp_path_factory.mktemp("shared") / "kidneys"
    shutil.copytree(template, root, symlinks=True)
    project = Project.open(root)
    web = project.config.web.model_copy(update={"sweep_minutes": 0})
    config = project.config.model_copy(update={"web": web})
    with running_web(replace(project, config=config), clock=Clock()) as running:
        running.add("anna", reader="reader-1")
        running.add("olga", "ops")
        yield running


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def server(serve: Callable[..., Any], clock: Clock) -> Iterator[WebServer]:
    """Anna reads, Olga is ops."""
    with serve(clock) as running:
        running.add("anna", reader="reader-1")
        running.add("olga", "ops")
        yield running


def events(server: WebServer, kind: str) -> list[dict[str, Any]]:
    return [row["payload"] for row in server.project.ledger.rows("audit_event", kind=f"account.{kind}")]


def set_cookies(answer: httpx.Response) -> dict[str, str]:
    return {line.partition("=")[0]: line for line in answer.headers.get_list("set-cookie")}


def test_signing_in_and_out(server: WebServer) -> None:
    """The session begins with the password, holds, and ends for good; each is on record by the account's id."""
    client = server.client()
    assert client.get("/api/me").status_code == 401
    client = server.sign_in("anna")
    me = client.get("/api/me").json()
    anna = server.accounts["anna"]
    assert (me["account_id"], me["roles"], me["reader_id"]) == (anna.account_id, ["reader"], "reader-1")
    stolen = dict(client.cookies)
    assert client.post("/sign-out").headers["location"] == "/sign-in"
    assert client.get("/api/me").status_code == 401
    assert server.client(cookies=stolen).get("/api/me").status_code == 401
    assert events(server, "signed_in") == [{"account_id": anna.account_id, "how": "password", "for": "sign_in"}]
    assert events(server, "signed_out") == [{"account_id": anna.account_id}]


def test_the_cookie_is_for_the_browser_only(shared: WebServer) -> None:
    """Scripts cannot read it, other sites' requests do not carry it, and it has no wider reach than this host."""
    answer = post_sign_in(shared.client(), "anna", PASSWORD)
    cookie = set_cookies(answer)["redraft"]
    assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= {part.strip() for part in cookie.split(";")}
    assert "Domain" not in cookie and len(re.match(r"redraft=([^;]+)", cookie).group(1)) >= 43  # type: ignore[union-attr]


def test_over_https_the_cookie_is_bound_to_the_host(serve: Callable[..., Any], tmp_path: Path) -> None:
    """With a certificate the server speaks TLS, the cookie is Secure and __Host-, and browsers are told to stay."""
    authority = Authority(tmp_path / "ca")
    pair = authority.issue("server")
    with serve(certificate=pair.certificate, key=pair.key) as server:
        server.add("anna", reader="reader-1")
        with httpx.Client(
            base_url=server.url.replace("http:", "https:"), verify=ssl.create_default_context(cafile=str(authority.ca))
        ) as client:
            answer = post_sign_in(client, "anna", PASSWORD)
            cookie = set_cookies(answer)["__Host-redraft"]
            assert {"Secure", "HttpOnly", "Path=/"} <= {part.strip() for part in cookie.split(";")}
            assert "max-age" in answer.headers["strict-transport-security"]
            assert client.get("/api/me").status_code == 200


def test_a_session_given_by_somebody_else_is_not_taken_over(shared: WebServer) -> None:
    """Fixation: signing in with a planted cookie begins another session, and the planted one leads nowhere."""
    olga = shared.sign_in("olga")
    planted = olga.cookies["redraft"]
    for value in (planted, "made-up-by-the-attacker"):
        victim = shared.client(cookies={"redraft": value})
        # A planted cookie of a live session shows its owner's pages, so the form is posted without looking at it.
        page = shared.client()
        page.get("/sign-in")
        fields = {"csrf": page.cookies["redraft-form"], "login": "anna", "password": PASSWORD}
        victim.cookies.set("redraft-form", page.cookies["redraft-form"])
        answer = victim.post("/sign-in", data=fields)
        assert answer.status_code == 303 and value not in set_cookies(answer)["redraft"]
        assert shared.client(cookies={"redraft": value}).get("/api/me").status_code == 401


def test_a_change_needs_the_sessions_own_token(server: WebServer) -> None:
    """Missing, made-up, empty and another session's tokens are refused; header, form and JSON carry the right one."""
    client, other = server.sign_in("anna"), server.sign_in("olga")
    right, others = client.headers.pop("X-CSRF-Token"), other.headers["X-CSRF-Token"]
    for token in (None, "", "x", others, right[:-1]):
        answer = client.post("/sign-out", headers={} if token is None else {"X-CSRF-Token": token})
        assert answer.status_code == 403 and "does not come from a page of yours" in answer.text
    for body in ("csrf=", f"csrf={others}", "[]", '{"csrf": 1}', "{", "[" * 100_000):
        for kind in (FORM, "application/json", "text/plain"):
            assert client.post("/sign-out", content=body, headers={"Content-Type": kind}).status_code == 403
    assert client.get("/api/me").status_code == 200
    for answer in (
        lambda c, token: c.post("/sign-out", headers={"X-CSRF-Token": token}),
        lambda c, token: c.post("/sign-out", data={"csrf": token}),
        lambda c, token: c.post("/sign-out", json={"csrf": token}),
    ):
        signed_in = server.sign_in("anna")
        assert answer(signed_in, signed_in.headers.pop("X-CSRF-Token")).status_code == 303


def test_the_sign_in_form_is_this_sites_own(server: WebServer) -> None:
    """A sign-in posted by another site (to sign a victim in as somebody else) is refused."""
    client = server.client()
    fields = {"login": "anna", "password": PASSWORD}
    assert client.post("/sign-in", data=fields).status_code == 403
    assert client.post("/sign-in", data={**fields, "csrf": "x"}).status_code == 403
    client.get("/sign-in")
    for site in ("cross-site", "same-site"):
        right = {**fields, "csrf": client.cookies["redraft-form"]}
        answer = client.post("/sign-in", data=right, headers={"Sec-Fetch-Site": site})
        assert answer.status_code == 403 and answer.json()["error"]["code"] == "web.cross_site"
    assert "redraft" not in client.cookies and events(server, "signed_in") == []


def test_sessions_end_by_the_clock(server: WebServer, clock: Clock) -> None:
    """Idle too long, or older than its hours however busy: the next request is signed out, and a page says where to."""
    client = server.sign_in("anna")
    clock.now += timedelta(minutes=61)
    answer = client.get("/work/a1?axis=2")
    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in?next=%2Fwork%2Fa1%3Faxis%3D2")
    client = server.sign_in("anna")
    for _ in range(12):
        clock.now += timedelta(minutes=49)
        assert client.get("/api/me").status_code == 200
    clock.now += timedelta(minutes=13)
    assert client.get("/api/me").json()["error"]["code"] == "web.signed_out"


def test_too_many_wrong_passwords_wait(server: WebServer, clock: Clock) -> None:
    """The page says for how long, the right password waits too, and 15 minutes later it is good; an address that
    guesses at many logins waits with all of them."""
    client = server.client()
    for _ in range(8):
        answer = post_sign_in(client, "anna", "wrong wrong wrong")
        assert answer.status_code == 401 and "login or the password is wrong" in answer.text
    answer = post_sign_in(client, "anna", PASSWORD)
    assert answer.status_code == 429 and int(answer.headers["retry-after"]) > 800 and "Try again in" in answer.text
    for guess in range(8 * (SHARED - 1) - 1):
        assert post_sign_in(client, f"guess{guess}", "wrong wrong wrong").status_code == 401
    # A forwarded address is anybody's word: it does not begin another count.
    client.headers["X-Forwarded-For"] = "10.1.2.3"
    assert post_sign_in(client, "olga", PASSWORD).status_code == 429
    clock.now += timedelta(minutes=16)
    assert post_sign_in(client, "anna", PASSWORD).status_code == 303
    # The first that was refused unseen stands for all that follow: one of the login, one of the address.
    assert len(events(server, "refused")) == 8 * SHARED + 1


def test_a_removed_account_is_out_at_its_next_request(server: WebServer) -> None:
    """Removal and a new password end sessions at once; a role taken away is gone at once."""
    anna, olga = server.sign_in("anna"), server.sign_in("olga")
    directory.remove(server.project, "anna", now=NOW)
    assert anna.get("/api/me").status_code == 401
    directory.set_roles(server.project, "olga", roles=("auditor",), reader_id=None, now=NOW)
    assert olga.get("/api/me").json()["roles"] == ["auditor"]
    directory.set_password(server.project, "olga", "another long sentence", now=NOW)
    assert olga.get("/api/me").status_code == 401


def test_a_session_of_an_account_that_the_ledger_removed_is_none(server: WebServer) -> None:
    """A removal that was cut off after the ledger's part leaves a session row, and it opens nothing."""
    client = server.sign_in("anna")
    with server.project.ledger.tx("test", NOW) as tx:
        tx.update("account", {"account_id": server.accounts["anna"].account_id}, {"state": "removed"})
    assert client.get("/api/me").status_code == 401


@pytest.mark.parametrize(
    "wanted",
    ["https://evil.example", "//evil.example", "/\\evil.example", "\\\\evil.example", "evil.example", "javascript:x",
     "/\t/evil.example", "///evil.example", "http:///x", "/%0d%0aSet-Cookie:x\r\n", "", "/ä"],
)  # fmt: skip
def test_signing_in_leads_to_this_site_only(shared: WebServer, wanted: str) -> None:
    """`next` of another site, or one that a browser may take for one, leads to the start page."""
    answer = post_sign_in(shared.client(), "anna", PASSWORD, next=wanted)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert shared.sign_in("anna").get("/sign-in", params={"next": wanted}).headers["location"] == "/"


@given(st.text(alphabet="/\\:@?#.%ahtps \t\r\n\x00é", max_size=12))
def test_no_text_leads_elsewhere(wanted: str) -> None:
    """Whatever `next` is: resolved as a browser does (backslash is a slash, controls are dropped) it stays here."""
    path = local_path(wanted)
    browser = re.sub(r"[\t\r\n]", "", path).replace("\\", "/")
    assert browser.startswith("/") and not browser.startswith("//") and urlsplit(browser).netloc == ""


def test_signing_in_goes_on_to_the_page_that_was_asked_for(shared: WebServer) -> None:
    """A link from a mail survives the sign-in, its question too."""
    answer = post_sign_in(shared.client(), "anna", PASSWORD, next="/work/a1?axis=2&index=7")
    assert answer.headers["location"] == "/work/a1?axis=2&index=7"


def test_what_is_typed_is_not_shown_unescaped(shared: WebServer) -> None:
    """Markup in the address, the login and `next` comes back as text or not at all."""
    markup = '"><script>alert(1)</script>'
    client = shared.client()
    pages = [
        post_sign_in(client, markup, markup, next=f"/{markup}"), client.get("/sign-in", params={"next": f"/{markup}"}),
        client.get(f"/nothing/{markup}"), client.get(f"/api/{markup}"),
    ]  # fmt: skip
    assert [page.status_code for page in pages] == [401, 200, 404, 404]
    assert not any("<script>alert" in page.text for page in pages)


def raw(server: WebServer, request: bytes) -> bytes:
    """Bytes as they are, past any client's good manners."""
    address = urlsplit(server.url)
    with closing(socket.create_connection((address.hostname, address.port), timeout=20)) as connection:
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.mark.parametrize(
    "path",
    ["/static/../server.py", "/static/%2e%2e/server.py", "/static/..%2fserver.py", "/static//etc/passwd",
     "/static/%00", "/static/....//server.py", "/static/..\\server.py", "/static/"],
)  # fmt: skip
def test_static_files_are_the_static_folders(shared: WebServer, path: str) -> None:
    """No path leads out of it, and no folder is listed."""
    answer = raw(shared, f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
    assert answer.split(b" ", 2)[1] in (b"404", b"400", b"405") and b"make_app" not in answer and b"root:" not in answer


def test_every_answer_is_dressed(shared: WebServer) -> None:
    """Pages, errors, redirects, static files and refusals carry the policy; none of it names the software."""
    client = shared.client()
    answers = [
        client.get("/sign-in"), client.get("/nothing"), client.get("/api/me"), client.get("/static/style.css"),
        client.get("/health"), client.post("/sign-out", headers={"Sec-Fetch-Site": "cross-site"}),
        client.put("/sign-in"), client.post("/sign-in", content=b"x" * (2 << 20), headers={"Content-Type": FORM}),
    ]  # fmt: skip
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'self'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "server" not in answer.headers
    assert answers[0].headers["cache-control"] == "no-store"
    assert [answers[n].status_code for n in (1, 2, 6, 7)] == [404, 401, 405, 413]
    for path in ("/docs", "/openapi.json", "/redoc"):
        assert client.get(path).status_code == 404


def test_oversized_bodies_are_refused_whether_they_say_so_or_not(server: WebServer) -> None:
    """A length that is too large, one that lies, and chunks without end: 413 in the wire's form, and nothing stays."""
    client = server.sign_in("anna")
    too_much = b"x" * ((1 << 20) + 1)
    declared = client.post("/sign-out", content=too_much)
    assert declared.status_code == 413
    chunked = client.post("/sign-in", content=iter([too_much[: 1 << 19]] * 4), headers={"Content-Type": FORM})
    assert chunked.status_code == 413
    for length in ("-1", "1e3", "99999999999999999999", "٣"):
        head = f"POST /sign-in HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
        answer = raw(server, head.encode())
        assert answer.split(b" ", 2)[1] in (b"400", b"413")
    assert client.get("/api/me").status_code == 200


def test_a_rebound_name_reaches_nothing(shared: WebServer) -> None:
    """A page of another name that resolves to this address is refused by its Host header."""
    for host in ("evil.example", "evil.example:8080", "127.0.0.1.evil.example", ""):
        assert shared.client().get("/sign-in", headers={"Host": host}).status_code in (400, 421)
    for host in ("localhost", "LOCALHOST:80", "127.0.0.1:1", "[::1]:80"):
        assert shared.client().get("/sign-in", headers={"Host": host}).status_code == 200


def test_health_is_for_everybody_and_says_nothing(shared: WebServer) -> None:
    """Whoever watches the server needs no account."""
    assert shared.client().get("/health").json() == {"status": "ok"}


# -- a trusted proxy -----------------------------------------------------------------------------------------------
@pytest.fixture
def behind_proxy(serve: Callable[..., Any], tmp_path: Path, clock: Clock) -> Iterator[WebServer]:
    """Anna has no password and comes through the proxy; Olga has both ways."""
    path = tmp_path / "proxy.secret"
    path.write_text(SECRET)
    settings = {"addresses": ("127.0.0.1", "10.0.0.0/24"), "secret": {"file": path}}
    with serve(clock, proxy=TrustedProxy.model_validate(settings)) as running:
        running.add("anna", reader="reader-1", password=None)
        running.add("olga", "ops")
        yield running


def test_a_user_the_proxy_vouches_for_is_in(behind_proxy: WebServer) -> None:
    """One session for all requests, bound to the header: without it, or with another user's, it is not theirs."""
    client = behind_proxy.client(headers={"X-Forwarded-User": "Anna", "X-Redraft-Proxy": SECRET})
    first = client.get("/api/me").json()
    assert first["account_id"] == behind_proxy.accounts["anna"].account_id
    assert client.get("/api/me").json()["csrf"] == first["csrf"]
    assert [event["how"] for event in events(behind_proxy, "signed_in")] == ["proxy"]
    alone = behind_proxy.client(cookies=dict(client.cookies))
    assert alone.get("/api/me").status_code == 401
    client.headers["X-Forwarded-User"] = "olga"
    assert client.get("/api/me").json()["account_id"] == behind_proxy.accounts["olga"].account_id
    assert client.post("/sign-out").status_code == 403  # a change needs the token behind a proxy too


@pytest.mark.parametrize(
    "headers",
    [
        {}, {"X-Redraft-Proxy": ""}, {"X-Redraft-Proxy": "guess"}, {"X-Redraft-Proxy": SECRET + "x"},
        {"X-Forwarded-For": "10.0.0.7"},
    ],
)  # fmt: skip
def test_a_forged_user_is_nobody(behind_proxy: WebServer, headers: dict[str, str]) -> None:
    """The header without the secret counts for nothing, on the proxy's own machine too."""
    client = behind_proxy.client(headers={"X-Forwarded-User": "anna", **headers})
    assert client.get("/api/me").status_code == 401
    assert events(behind_proxy, "signed_in") == []


def test_the_secret_from_another_address_is_nobodys(serve: Callable[..., Any], tmp_path: Path) -> None:
    """Even who knows the secret is believed from the proxy's addresses only."""
    (tmp_path / "proxy.secret").write_text(SECRET)
    settings = {"addresses": ("10.0.0.7",), "secret": {"file": tmp_path / "proxy.secret"}}
    with serve(proxy=TrustedProxy.model_validate(settings)) as server:
        server.add("anna", reader="reader-1", password=None)
        client = server.client(headers={"X-Forwarded-User": "anna", "X-Redraft-Proxy": SECRET})
        assert client.get("/api/me").status_code == 401


def test_a_user_without_an_account_is_told_so(behind_proxy: WebServer) -> None:
    """The hospital knows them, redraft does not: clear words, an audit event without the name, and no session."""
    client = behind_proxy.client(headers={"X-Forwarded-User": "dr.unknown", "X-Redraft-Proxy": SECRET})
    answers = [client.get("/api/me"), client.get("/sign-in")]
    assert [answer.status_code for answer in answers] == [401, 401]
    assert all("no account here" in answer.text for answer in answers) and not client.cookies.get("redraft")
    (event, *_) = events(behind_proxy, "refused")
    assert event["why"] == "unknown_to_redraft" and "unknown@" not in str(event) and "dr.unknown" not in str(event)


def test_a_person_without_a_password_signs_in_nowhere_else(behind_proxy: WebServer) -> None:
    """No password opens an account that has none; others may still use theirs."""
    assert post_sign_in(behind_proxy.client(), "anna", "").status_code == 401
    assert behind_proxy.sign_in("olga").get("/api/me").status_code == 200


def test_a_proxy_that_cannot_be_checked_is_refused_at_the_start(serve: Callable[..., Any], tmp_path: Path) -> None:
    """An address that is none is an error of the configuration."""
    (tmp_path / "proxy.secret").write_text(SECRET)
    settings = {"addresses": ("proxy.example",), "secret": {"file": tmp_path / "proxy.secret"}}
    with pytest.raises(ConfigError, match=r"proxy\.example"), serve(proxy=TrustedProxy.model_validate(settings)):
        pass
