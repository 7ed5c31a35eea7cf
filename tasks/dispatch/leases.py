"""What becomes of work that is out: kept, kept longer because it was sent back, taken away. Told from rows alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from redraft.config.schema import Dispatch
from redraft.work_leases import OUT, until

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Judgement:
    """Assignment ids by what becomes of them.

    Attributes
    ----------
    renew : a lease begins (or begins again) and ends then.
    end : handed in; there is nothing to keep any more.
    expire : the lease ran out: withdrawn, to be given to somebody else.
    leave : its reader takes no work any more: withdrawn, to be given to somebody else.
    """

    renew: dict[str, datetime]
    end: tuple[str, ...]
    expire: tuple[str, ...]
    leave: tuple[str, ...]

    @property
    def withdrawn(self) -> tuple[str, ...]:
        return tuple(sorted((*self.expire, *self.leave)))


def judge(
    assignments: Sequence[Row], leases: Mapping[str, Row], sent_back: Mapping[str, datetime], away: Collection[str],
    due: datetime, rules: Dispatch, now: datetime,
) -> Judgement:  # fmt: skip
    """Judge the work of one round.

    Work that was sent back is kept for its reader for as long again as new work is, from that moment on; else a review
    that took days would take the exam from its reader.

    Parameters
    ----------
    leases : lease rows by assignment id.
    sent_back : assignment id to when it last went back to its reader.
    away : readers who take no work any more.
    due : the round's deadline.
    """
    renew: dict[str, datetime] = {}
    end, expire, leave = [], [], []
    for row in sorted(assignments, key=lambda row: row["assignment_id"]):
        identity, lease = row["assignment_id"], leases.get(row["assignment_id"])
        if row["state"] not in OUT:
            if lease is not None and lease["state"] == "held" and row["state"] not in ("CARRIED_OVER", "WITHDRAWN"):
                end.append(identity)
            continue
        if row["reader_id"] in away:
            leave.append(identity)
            continue
        if lease is None:  # of a project from before there were leases
            renew[identity] = until(now, due, rules)
            continue
        ends = datetime.fromisoformat(lease["expires_at"])
        if row["state"] == "RETURNED_TO_READER":
            begun = sent_back.get(identity)
            again = until(begun, due, rules) if begun is not None else ends
            if again > ends or lease["state"] != "held":
                ends = max(again, ends)
                if ends > now:
                    renew[identity] = ends
                    continue
        if ends <= now:
            expire.append(identity)
    return Judgement(renew, tuple(end), tuple(expire), tuple(leave))
