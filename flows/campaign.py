"""campaign: N rounds for several strategies and seeds with simulated readers, each arm a project of its own."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from redraft import rounds
from redraft.create import create_project
from redraft.decisions import decide_by_policy
from redraft.files import write_text
from redraft.project import Project

# Three invented readers of different pace and care; replaced by the project's own where it names several.
READERS = (
    {"id": "reader-1", "role": "radiologist"},
    {"id": "reader-2", "role": "radiologist", "speed": 1.3},
    {"id": "reader-3", "role": "radiologist", "speed": 0.8, "sloppiness_mm": 0.5},
)


@dataclass(frozen=True)
class Point:
    """One round of one arm: what had been spent on training annotations by then, and what the challenger reached."""

    strategy: str
    seed: int
    round: int
    exams: int
    minutes: float
    money: Decimal
    structure: str
    dice: float | None
    lo: float | None
    hi: float | None
    n: int


def run_rounds(project_dir: str, count: int) -> None:
    """Run `count` rounds of one project to their decision; a project that has some goes on where it stands.

    Decisions follow the gate: this is the policy of campaigns and demos, and the record names it.
    """
    from flows.close_round import close_round
    from flows.open_round import open_round
    from flows.promote_model import promote_model

    while True:
        project = Project.open(project_dir)
        done = [row for row in project.ledger.rows("round") if row["state"] in rounds.TERMINAL]
        if len(done) >= count:
            return
        live = rounds.current(project)
        stage = None if live is None else (live["failed_in"] or live["state"])
        if live is None or stage == "OPENING":
            open_round(project_dir)
            continue
        number = int(live["number"])
        if stage in ("AWAITING_ANNOTATION", "CLOSING"):
            close_round(project_dir, number, True)
            continue
        promote_model(project_dir, number, decide_by_policy(project, number, now=datetime.now(UTC)))


def make_arm(base: Project, out: Path, strategy: str, seed: int, oracle: Path) -> Project:
    """Make (or find again) the project of one arm: the base's configuration with this strategy, seed and truth."""
    root = out / f"{strategy}-seed{seed}"
    if not (root / "project.yaml").exists():
        yaml = YAML()
        tree = yaml.load((base.root / "project.yaml").read_text(encoding="utf-8"))
        tree["name"] = f"{base.config.name}-{strategy.replace('_', '-')}-seed{seed}"
        tree["seed"] = base.config.seed + seed
        tree["select"]["strategy"] = strategy
        tree["dispatch"]["backend"] = "simulated"
        if len(base.config.dispatch.readers) < len(READERS):
            tree["dispatch"]["readers"] = [dict(reader) for reader in READERS]
        tree["ingest"]["sources"] = [
            str(base.resolve(source.path)) for source in base.config.ingest.sources if source.kind == "folder"
        ]
        simulation = dict(tree.get("simulation") or {})
        tree["simulation"] = {**simulation, "oracle": str(oracle.resolve())}
        security = dict(tree.get("security") or {})
        security["vault"] = str((out / "vaults" / root.name).resolve())
        tree["security"] = security
        tree.pop("remote", None)
        stream = io.StringIO()
        yaml.dump(tree, stream)
        write_text(root / "rates.yaml", base.resolve(base.config.money.rates).read_text(encoding="utf-8"))
        write_text(root / ".gitignore", "/.redraft/\n/work/\n/data/\n")
        write_text(root / "project.yaml", stream.getvalue())
    return create_project(root, base.config.template or "kidney-ct", datetime.now(UTC))


def run_campaign(
    base: Project,
    out: Path,
    strategies: Sequence[str],
    seeds: int,
    count: int,
    oracle: Path,
    say: Callable[[str], None],
) -> list[Point]:
    """Run every arm (an interrupted campaign goes on) and return all points."""
    points: list[Point] = []
    for seed in range(seeds):
        for strategy in strategies:
            arm = make_arm(base, out, strategy, seed, oracle)
            say(f"{strategy}, seed {seed}: {count} rounds")
            run_rounds(str(arm.root), count)
            points += arm_points(arm, strategy, seed)
    return points


def arm_points(project: Project, strategy: str, seed: int) -> list[Point]:
    """Points of one arm from its ledger; training annotations only, reference work is a cost of every arm alike."""
    ledger = project.ledger
    work = {row["assignment_id"]: row for row in ledger.rows("assignment")}
    annotations = {row["annotation_id"]: work[row["assignment_id"]] for row in ledger.rows("annotation")}
    points: list[Point] = []
    minutes, money, exams = 0.0, Decimal(0), 0
    for row in sorted(ledger.rows("round"), key=lambda r: r["number"]):
        number = row["number"]
        minutes += sum(
            entry["active_minutes"]
            for entry in ledger.rows("time_entry")
            if (a := annotations[entry["annotation_id"]])["round"] == number and a["purpose"] == "training"
        )
        money += sum((Decimal(e["amount"]) for e in ledger.rows("cost_entry", round=number, kind="expert")), Decimal(0))
        exams += sum(
            1 for a in work.values() if a["round"] == number and a["purpose"] == "training" and a["state"] == "ACCEPTED"
        )
        found = ledger.rows("metric", model_digest=row["challenger"], test_set="test", name="dice")
        order = {structure.name: place for place, structure in enumerate(project.config.structures)}
        for metric in sorted(found, key=lambda metric: order[metric["structure"]]):
            points.append(
                Point(
                    strategy, seed, number, exams, round(minutes, 3), money, metric["structure"], metric["mean"],
                    metric["lo"], metric["hi"], metric["n"],
                )
            )  # fmt: skip
    return points


def as_rows(points: Sequence[Point]) -> list[dict[str, Any]]:
    """Points as JSON-ready rows, money as text to the cent."""
    return [{**vars(point), "money": str(point.money.quantize(Decimal("0.01")))} for point in points]
