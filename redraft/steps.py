"""The contract of a step: inputs with a digest, outputs as small references, a recorded result that is never redone.

A step's digest is SHA-256 over its name, its inputs (themselves digests of data, model and parameters) and the code's
version. The ledger holds what a digest returned: running a flow again returns it, an interrupted step starts again,
and what the step writes to the ledger is committed together with its result, so that it happens once.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ConfigDict

from redraft.digest import sha256_bytes, sha256_json
from redraft.errors import ConflictError, RedraftError
from redraft.project import Project

if TYPE_CHECKING:
    from redraft.ledger import Ledger, Tx

STEPS = ("ingest", "infer", "select", "dispatch", "validate", "retrain", "evaluate", "account")


class Contract(BaseModel):
    """Base of step inputs and outputs: frozen, JSON only, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    schema_version: int = 1

    @property
    def digest(self) -> str:
        return sha256_json(self.model_dump(mode="json"))


Outputs = TypeVar("Outputs", bound=Contract)


@dataclass(frozen=True)
class Done:
    """What a step's body hands back: its outputs, and the ledger rows that come true together with them."""

    outputs: Contract
    record: Callable[[Tx], None] = lambda tx: None


@dataclass
class Timings:
    """Wall seconds of a step by what they were spent on (`core`, `ledger`, `dataset`, `mlflow`, …)."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


@dataclass(frozen=True)
class Context:
    """What a step's shell works with. Cores never see it.

    `token` is the fencing token of the writer's lease: `check_lease` is called before anything is published.
    """

    project: Project
    number: int
    token: int | None = None
    actor: str = "flow"
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    timings: Timings = field(default_factory=Timings)

    @property
    def ledger(self) -> Ledger:
        return self.project.ledger

    def check_lease(self) -> None:
        """Raise ConflictError when another writer has taken the project over."""
        if self.token is None:
            return
        row = self.ledger.one("lease", name="writer")
        if row is None or row["token"] != self.token:
            raise ConflictError(
                f"Round {self.number}: another process took over this project's writer lease.",
                "Nothing was published from here. See `redraft status`; the other process goes on.",
            )


def run_step(
    ctx: Context, step: str, inputs: Contract, returns: type[Outputs], body: Callable[[], Done], *, always: bool = False
) -> Outputs:
    """Run a step once per digest and round; a recorded result is returned without running.

    Parameters
    ----------
    always : bool
        Run even where a result is recorded (ingest: sources are looked at every time; the step is idempotent itself).
    """
    inputs_json = inputs.model_dump(mode="json")
    digest = sha256_json({"step": step, "inputs": inputs_json, "code": code_version()})
    with ctx.timings.part("ledger"):
        runs = ctx.ledger.rows("step_run", round=ctx.number, step=step, digest=digest)
        done = [row for row in runs if row["state"] == "done"]
        if done and not always:
            return returns.model_validate(done[-1]["outputs"])
        attempt = len(runs) + 1
        run_id = sha256_json([ctx.number, step, digest, attempt])[:24]
        started = ctx.clock()
        with ctx.ledger.tx(ctx.actor, started) as tx:
            for row in runs:
                if row["state"] == "running":  # its process is gone: one writer at a time holds the lease
                    key = {"step_run_id": row["step_run_id"]}
                    tx.update("step_run", key, {"state": "failed", "error": "interrupted"})
            tx.insert(
                "step_run",
                {
                    "step_run_id": run_id,
                    "round": ctx.number,
                    "step": step,
                    "digest": digest,
                    "state": "running",
                    "attempt": attempt,
                    "inputs": {"values": inputs_json, "code": code_version()},
                    "outputs": None,
                    "started_at": started,
                    "finished_at": None,
                    "seconds": None,
                    "host": None,
                    "error": None,
                },
            )
    start = time.perf_counter()
    before = dict(ctx.timings.seconds)
    try:
        result = body()
    except Exception as error:
        with ctx.ledger.tx(ctx.actor, ctx.clock()) as tx:
            # Only our own errors are known to hold no identity; of others the type is recorded.
            text = error.code if isinstance(error, RedraftError) else type(error).__name__
            failed = {"state": "failed", "error": text, "finished_at": ctx.clock()}
            tx.update("step_run", {"step_run_id": run_id}, failed)
        raise
    seconds = time.perf_counter() - start
    outputs = returns.model_validate(result.outputs.model_dump())
    ctx.check_lease()
    parts = {name: round(value - before.get(name, 0.0), 3) for name, value in ctx.timings.seconds.items()}
    with ctx.timings.part("ledger"), ctx.ledger.tx(ctx.actor, ctx.clock()) as tx:
        result.record(tx)
        tx.update(
            "step_run",
            {"step_run_id": run_id},
            {
                "state": "done",
                "outputs": outputs.model_dump(mode="json"),
                "finished_at": ctx.clock(),
                "seconds": round(seconds, 3),
                "host": {**host(), "parts": parts},
            },
        )
    return outputs


@cache
def code_version() -> str:
    """Version of redraft and a digest over its sources: an edited step is another step."""
    from redraft import __version__

    root = Path(__file__).resolve().parents[1]
    lines = []
    for room in ("redraft", "models", "tasks"):
        for path in sorted((root / room).rglob("*.py")):
            lines.append(f"{path.relative_to(root).as_posix()} {sha256_bytes(path.read_bytes())}")
    return f"{__version__}+{sha256_bytes(chr(10).join(lines).encode())[:16]}"


@cache
def host() -> dict[str, Any]:
    """The machine as far as results depend on it; no host name, no user."""
    return {"machine": platform.machine(), "cpus": os.cpu_count(), "python": platform.python_version()}
