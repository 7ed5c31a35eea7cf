"""Sessions: a cookie nobody can guess or read from the database, with both ends of its life."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, select

from redraft.accounts import sessions
from redraft.desk.store import Desk, metadata, web_session
from redraft.project import Project

NOW = datetime(2026, 3, 2, 8, 30, tzinfo=UTC)


def test_the_database_holds_the_cookies_digest_only(project: Project) -> None:
    """256 random bits, each time others; what is stored is their SHA-256 and does not work as a cookie."""
    tokens = {sessions.begin(project.desk, "ac-1", "password", now=NOW, hours=1)[0] for _ in range(20)}
    assert len(tokens) == 20 and all(len(token) >= 43 for token in tokens)
    with project.desk.read() as connection:
        kept = {row.token_sha256 for row in connection.execute(select(web_session))}
    assert kept == {hashlib.sha256(token.encode()).hexdigest() for token in tokens}
    assert all(sessions.find(project.desk, digest, now=NOW, idle_minutes=5) is None for digest in kept)


@settings(max_examples=60, deadline=None)
@given(gaps=st.lists(st.integers(0, 900), max_size=12), hours=st.floats(0.05, 1), idle=st.integers(1, 15))
def test_a_session_lives_while_it_is_used_and_no_longer_than_its_hours(
    gaps: list[int], hours: float, idle: int
) -> None:
    """Against the rule itself: alive until a gap reaches the idle limit or its age reaches its hours, then never again.

    A session counts as seen up to 30 s late, so it may end that much early, and never late.
    """
    desk = Desk(create_engine("sqlite://"))
    metadata.create_all(desk.engine)
    token, _ = sessions.begin(desk, "ac-1", "password", now=NOW, hours=hours)
    now, ended = NOW, False
    for gap in gaps:
        now += timedelta(seconds=gap)
        must_be_dead = ended or gap >= idle * 60 or now >= NOW + timedelta(hours=hours)
        found = sessions.find(desk, token, now=now, idle_minutes=idle)
        if must_be_dead:
            assert found is None
        elif gap < idle * 60 - min(30, idle * 15):
            assert found is not None
        ended = found is None


def test_ended_and_expired_sessions_leave_no_rows(project: Project) -> None:
    """Signing out removes the row at once; expired ones go when the next session begins."""
    token, _ = sessions.begin(project.desk, "ac-1", "password", now=NOW, hours=1)
    sessions.begin(project.desk, "ac-2", "password", now=NOW, hours=1)
    sessions.end(project.desk, token)
    sessions.end(project.desk, "never was one")
    sessions.begin(project.desk, "ac-3", "password", now=NOW + timedelta(hours=2), hours=1)
    with project.desk.read() as connection:
        assert [row.account_id for row in connection.execute(select(web_session))] == ["ac-3"]
