"""account as a step: the round's minutes, machine seconds and bytes → cost entries."""

from __future__ import annotations

from decimal import Decimal

from prefect import task
from prefect.cache_policies import NO_CACHE

from redraft.create import record_rates
from redraft.digest import sha256_json
from redraft.ledger import Tx
from redraft.project import Project
from redraft.steps import Context, Contract, Done, run_step
from tasks.account.cost import CostEntry, cost_entries
from tasks.account.records import look_rows, time_rows, uses


class AccountInputs(Contract):
    """Times and prices."""

    times_sha256: str
    looks_sha256: str
    rates_sha256: str


class AccountRef(Contract):
    """Entries of the round; money as text."""

    entries: int
    expert: str
    reference: str
    currency: str


@task(name="account", cache_policy=NO_CACHE, persist_result=False)
def account(project_dir: str, number: int, token: int) -> AccountRef:
    """Turn the round's time into money."""
    project = Project.open(project_dir)
    ctx = Context(project, number, token, "account")
    rows = [row for row in time_rows(project) if row.round == number]
    looks = look_rows(project, number)
    inputs = AccountInputs(
        looks_sha256=sha256_json([look.model_dump(mode="json") for look in looks]),
        times_sha256=sha256_json([row.model_dump(mode="json", exclude={"worked_on"}) for row in rows]),
        rates_sha256=sha256_json(project.rates.model_dump(mode="json")),
    )

    def body() -> Done:
        with ctx.timings.part("core"):
            compute, storage = uses(project, number)
            entries = cost_entries(
                rows, compute, storage, project.rates, currency=project.config.money.currency,
                site=project.config.money.site, looks=looks,
            )  # fmt: skip
        now = ctx.clock()

        def record(tx: Tx) -> None:
            record_rates(tx, project.rates, now)
            # Entries are never changed: accounted again (other prices since), what was entered stays as it was.
            known = {row["cost_entry_id"] for row in tx.rows("cost_entry", round=number)}
            tx.insert_many(
                "cost_entry",
                [
                    {
                        "cost_entry_id": _identity(entry),
                        "round": entry.round,
                        "kind": entry.kind,
                        "what": entry.what,
                        "exam_id": entry.exam_id,
                        "reader_id": entry.reader_id,
                        "minutes": entry.minutes,
                        "amount": entry.amount,
                        "currency": entry.currency,
                        "rate": entry.rate,
                        "simulated": entry.simulated,
                        "at": now,
                    }
                    for entry in entries
                    if _identity(entry) not in known
                ],
            )

        def total(kind: str) -> str:
            return str(sum((e.amount for e in entries if e.kind == kind), start=Decimal(0)))

        ref = AccountRef(
            entries=len(entries), expert=total("expert"), reference=total("reference"),
            currency=project.config.money.currency,
        )  # fmt: skip
        return Done(ref, record)

    return run_step(ctx, "account", inputs, AccountRef, body)


def _identity(entry: CostEntry) -> str:
    return sha256_json([entry.round, entry.kind, entry.what])[:24]
