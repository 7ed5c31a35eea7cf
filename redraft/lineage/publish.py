"""Locking a round and publishing it; publishing a decision and moving the champion alias after it."""

from __future__ import annotations

import json
from typing import Any

from redraft.dataset.publish import publish_records
from redraft.digest import sha256_json
from redraft.ledger import sign_checkpoint_payload
from redraft.lineage.lock import write_lock
from redraft.steps import Context


def lock_and_publish(ctx: Context) -> None:
    """Write round.yaml, sign a checkpoint of the audit chain, commit and tag both, push where a remote is set.

    Repeating it after a crash converges: the lock is written again from the same rows, an existing checkpoint is used.
    """
    ledger, number = ctx.ledger, ctx.number
    path, sha256 = write_lock(ctx)
    locked = [e for e in ledger.rows("audit_event", kind="round.locked") if e["payload"]["round"] == number]
    ctx.check_lease()
    if not locked or locked[-1]["payload"]["sha256"] != sha256:
        with ledger.tx(ctx.actor, ctx.clock()) as tx:
            tx.event("round.locked", {"round": number, "path": path, "sha256": sha256})
    checkpoint = _checkpoint(ctx)
    records = [path, *_beside(ctx)]
    message = f"Round {number}\n\n{json.dumps(checkpoint, sort_keys=True)}"
    with ctx.timings.part("dataset"):
        publish_records(
            ctx.project.root,
            records,
            f"Round {number}: lock",
            {f"round-{number:04d}": message},
            ctx.project.config.remote.git,
        )


def _beside(ctx: Context) -> list[str]:
    """Further record files of the round that belong into history (frozen plan, validation results)."""
    folder = ctx.project.round_dir(ctx.number)
    return sorted(p.relative_to(ctx.project.root).as_posix() for p in folder.glob("*.json"))


def _checkpoint(ctx: Context) -> dict[str, Any]:
    ledger, number = ctx.ledger, ctx.number
    rows = ledger.rows("checkpoint", round=number)
    if not rows:
        keys = ctx.project.checked_keys
        with ledger.tx(ctx.actor, ctx.clock()) as tx:
            head = max(tx.rows("audit_event", kind="round.locked"), key=lambda event: event["seq"])
            signature = keys.sign(sign_checkpoint_payload(head["seq"], head["hash"]))
            tx.insert(
                "checkpoint",
                {
                    "checkpoint_id": sha256_json([number, head["hash"]])[:24],
                    "round": number,
                    "seq": head["seq"],
                    "hash": head["hash"],
                    "signature": signature,
                    "key_fingerprint": keys.fingerprint,
                    "at": ctx.clock(),
                },
            )
        rows = ledger.rows("checkpoint", round=number)
    row = rows[-1]
    return {key: row[key] for key in ("round", "seq", "hash", "signature", "key_fingerprint")}


def publish_decision(ctx: Context, decision: dict[str, Any]) -> None:
    """Tag a recorded decision (signed), then let the registry's alias follow the ledger."""
    from redraft.registry.tracking import Registry

    ctx.check_lease()
    keys = ctx.project.checked_keys
    text = decision_text(decision)
    message = f"Decision about round {decision['round']}\n\n{text}\nsignature: {keys.sign(text.encode())}"
    publish_records(ctx.project.root, [], "", {decision_tag(decision): message}, ctx.project.config.remote.git)
    if decision["kind"] == "approve":
        model = ctx.ledger.one("model", model_digest=decision["model_digest"])
        assert model is not None
        Registry(ctx.project.tracking_uri, ctx.project.state).reconcile(model["name"], "champion", model["version"])


def decision_tag(decision: dict[str, Any]) -> str:
    """The tag that carries a decision."""
    return f"decision-{decision['round']:04d}"


def decision_text(decision: dict[str, Any]) -> str:
    """What is signed of a decision: one line of JSON. The reason stays in the ledger, it may hold free text."""
    keys = ("decision_id", "round", "kind", "model_digest", "by_whom", "identity", "at")
    return json.dumps({key: decision[key] for key in keys}, sort_keys=True)
