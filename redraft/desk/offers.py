"""For which assignments there is work to merge or to drop."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select

from redraft.desk.store import Desk, offer


def open_offers(desk: Desk, assignments: Sequence[str]) -> set[str]:
    """Of these assignments the ones with kept work that waits for their reader."""
    query = select(offer.c.assignment_id).where(offer.c.assignment_id.in_(assignments), offer.c.state == "open")
    with desk.read() as connection:
        return set(connection.scalars(query))
