"""A target that does what no reader may do: whether the fuzzer would notice."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from tests.fuzz.target import Answer, Case

MISDEEDS = ("crash", "hang", "memory", "exception", "number", "answer")


def start(root: str, work: str) -> Callable[[Case], Answer]:
    """As tests.fuzz.target.start."""

    def misbehave(case: Case) -> Answer:
        misdeed = MISDEEDS[len(next(iter(case.files.values()))) % len(MISDEEDS)]
        if misdeed == "crash":
            os.abort()
        if misdeed == "hang":
            time.sleep(3600)
        if misdeed == "memory":
            bytearray(4 << 30)
        if misdeed == "exception":
            raise KeyError("Abendroth^Ute")
        if misdeed == "number":
            raise OSError("Expected 5 bytes, got 3")
        return Answer((("admitted", "admitted"),), ("values that are not finite",), 0.0)

    return misbehave
