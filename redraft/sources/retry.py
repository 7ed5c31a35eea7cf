"""Asking a remote source again: doubling waits, a bounded number of attempts, and progress that earns new ones."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from redraft.config.sources import Retry
from redraft.errors import ServiceError

T = TypeVar("T")


class NotNow(Exception):
    """A failure that may pass: no answer, a broken connection, a server that says it is busy.

    Parameters
    ----------
    why : str
        In words of our own, to follow the source's name ("the connection broke"): what libraries say quotes URLs.
    after : float, optional
        Seconds that the source asked to be left alone.
    """

    def __init__(self, why: str, after: float | None = None):
        super().__init__(why)
        self.why = why
        self.after = after


def persist(
    call: Callable[[], T],
    rules: Retry,
    *,
    progress: Callable[[], int] | None = None,
    wait: Callable[[float], None] = time.sleep,
) -> T:
    """The result of `call`, which is repeated while it raises NotNow.

    Attempt n waits ``wait_seconds * 2 ** (n - 1)`` seconds; longer where the source asks for it, but no longer than
    `timeout_seconds` on its word alone.

    Parameters
    ----------
    progress : function, optional
        A number that grows when an attempt brought something that the next one need not bring again (files that are
        whole). Attempts are then counted since it last grew: a long transfer over a poor line ends.
    wait : function
        Waits for that many seconds.

    Raises
    ------
    NotNow
        That of the last attempt, when `attempts` in a row failed. Every other exception goes through at once.
    """
    failed = 0
    reached = progress() if progress else 0
    while True:
        try:
            return call()
        except NotNow as failure:
            now = progress() if progress else 0
            failed = 1 if now > reached else failed + 1
            reached = max(reached, now)
            if failed >= rules.attempts:
                raise
            pause = rules.wait_seconds * 2.0 ** (failed - 1)
            if failure.after is not None:
                pause = max(pause, min(failure.after, rules.timeout_seconds))
        wait(pause)


def gave_up(name: str, failure: NotNow, rules: Retry) -> ServiceError:
    """What to raise when a source was asked often enough; `name` is the source's in project.yaml."""
    times = "once" if rules.attempts == 1 else f"{rules.attempts} times in a row"
    return ServiceError(
        f"The source {name} was asked {times}: {failure.why}.",
        "Check that it runs and can be reached from here, then run the command again; what is whole is kept.",
        code="service.unreachable",
    )
