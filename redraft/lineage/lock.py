"""The lock of a round (`round.yaml`): every step's inputs, parameters, code version and outputs as digests."""

from __future__ import annotations

import io
from typing import Any

from ruamel.yaml import YAML

from redraft.digest import sha256_bytes, sha256_json
from redraft.files import write_text
from redraft.steps import STEPS, Context


def content_digests(ctx: Context) -> dict[str, str | None]:
    """What equal runs must agree on: selection, labels, splits and weights. Times and run ids have no part in it."""
    ledger, number = ctx.ledger, ctx.number
    modes = {
        row["exam_id"]: row["mode"] for row in ledger.rows("assignment", round=number) if row["purpose"] == "training"
    }
    selection = sorted(
        [row["rank"], row["exam_id"], row["chosen_by"], modes.get(row["exam_id"])]
        for row in ledger.rows("selection", round=number)
    )
    labels = sorted(
        [row["exam_id"], row["annotation_id"], row["sha256"]]
        for row in ledger.rows("annotation")
        if row["state"] == "valid"
    ) + sorted(
        [row["exam_id"], row["consensus_id"], row["sha256"], row["state"]]
        for row in ledger.rows("consensus")
        if row["state"] != "superseded"
    )
    splits = sorted([row["subject_id"], row["split"]] for row in ledger.rows("subject"))
    models = [row["model_digest"] for row in ledger.rows("model", round=number)]
    return {
        "selection": sha256_json(selection),
        "labels": sha256_json(labels),
        "splits": sha256_json(splits),
        "weights": models[-1] if models else None,
    }


def write_lock(ctx: Context) -> tuple[str, str]:
    """Write rounds/NNNN/round.yaml; returns its path relative to the project and its SHA-256."""
    row = ctx.ledger.one("round", number=ctx.number)
    assert row is not None
    steps: dict[str, Any] = {}
    for step in STEPS:
        runs = [run for run in ctx.ledger.rows("step_run", round=ctx.number, step=step) if run["state"] == "done"]
        if runs:
            last = max(runs, key=lambda run: (run["finished_at"], run["attempt"]))
            steps[step] = {
                "digest": last["digest"],
                "inputs": last["inputs"],
                "outputs": last["outputs"],
                "outputs_sha256": sha256_json(last["outputs"]),
            }
    version = ctx.ledger.rows("dataset_version", round=ctx.number)
    lock = {
        "schema_version": 1,
        "round": ctx.number,
        "strategy": row["strategy"],
        "seed": row["seed"],
        "config_sha256": row["config_sha256"],
        "simulated": row["simulated"],
        "champion": row["champion"],
        "challenger": row["challenger"],
        "criteria": row["criteria"],
        "dataset": {key: version[-1][key] for key in ("dvc_md5", "manifest_sha256", "roles")} if version else None,
        "content": content_digests(ctx),
        "steps": steps,
    }
    stream = io.StringIO()
    yaml = YAML()
    yaml.width = 4096
    yaml.dump(lock, stream)
    path = ctx.project.round_dir(ctx.number) / "round.yaml"
    write_text(path, stream.getvalue())
    return path.relative_to(ctx.project.root).as_posix(), sha256_bytes(stream.getvalue().encode("utf-8"))
