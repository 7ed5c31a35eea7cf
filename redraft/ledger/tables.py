"""The ledger's tables. Every row of every table is written through `Tx` and therefore stands in the audit chain too.

Types that reach JSON unchanged: datetimes are ISO-8601 UTC text, money is decimal text, nested values canonical JSON.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from redraft.ledger.values import Json, of_type

metadata = MetaData()


def checked(table: str, row: dict[str, Any]) -> dict[str, Any]:
    """A plain row, each value of its column's own type, so that what is hashed is what the database gives back.

    Raises TypeError or ValueError: SQLite would take text for a number, or NaN as NULL, without a word.
    """
    result = {}
    for name, value in row.items():
        column = metadata.tables[table].c[name]
        result[name] = value if value is None else of_type(f"{table}.{name}", column.type, value)
    return result


def _one_of(column: str, *values: str) -> CheckConstraint:
    quoted = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({quoted})", name=f"{column}_known")


def _text(name: str, *args: Any, null: bool = False, **kwargs: Any) -> Column[str]:
    return Column(name, Text, *args, nullable=null, **kwargs)


def _key(name: str) -> Column[str]:
    return Column(name, String(64), primary_key=True)


def _ref(name: str, target: str, null: bool = False) -> Column[str]:
    return Column(name, String(64), ForeignKey(target), nullable=null, index=True)


def _json(name: str, null: bool = False) -> Column[Any]:
    return Column(name, Json, nullable=null)


def _int(name: str, null: bool = False) -> Column[int]:
    return Column(name, Integer, nullable=null)


def _float(name: str, null: bool = False) -> Column[float]:
    return Column(name, Float, nullable=null)


def _flag(name: str) -> Column[bool]:
    return Column(name, Boolean, nullable=False)


def _round() -> Column[int]:
    return Column("round", Integer, ForeignKey("round.number"), nullable=False, index=True)


project = Table(
    "project",
    metadata,
    _key("project_id"),
    _text("name"),
    _text("created_at"),
    _text("currency"),
    _text("key_fingerprint"),
    _int("key_version"),
)
subject = Table("subject", metadata, _key("subject_id"), _text("split"), _text("stratum"), _text("drawn_at", null=True))
exam = Table(
    "exam",
    metadata,
    _key("exam_id"),
    _ref("subject_id", "subject.subject_id"),
    _text("series_id", unique=True),
    _text("modality"),
    _json("shape"),
    _json("spacing"),
    _json("affine"),
    _text("image_path"),
    _text("image_sha256"),
    _int("image_bytes"),
    _text("header_digest"),
    _text("source_kind"),
    _text("admitted_at"),
)
receipt = Table(
    "receipt",
    metadata,
    _key("receipt_id"),
    _text("intake_id"),
    _text("series_id", null=True),
    _ref("exam_id", "exam.exam_id", null=True),
    _text("verdict"),
    _text("rule"),
    _json("measured"),
    _int("files"),
    _text("at"),
    _one_of("verdict", "admitted", "duplicate", "quarantined", "refused"),
)
# Who may do what. Login names and passwords are not here: the chain is for ever, they are not (redraft/accounts).
account = Table(
    "account",
    metadata,
    _key("account_id"),
    _text("reader_id", null=True),
    _json("roles"),
    _text("state"),
    _text("added_at"),
    _text("added_by"),
    _one_of("state", "active", "removed"),
)
reader = Table("reader", metadata, _key("reader_id"), _text("role"), _flag("simulated"), _text("added_at"))
# Erasable: the chain holds a salted commitment to the name, never the name.
reader_identity = Table("reader_identity", metadata, _key("reader_id"), _text("display_name"), _text("salt"))
rate_card = Table(
    "rate_card", metadata, _key("version"), _text("sha256"), _text("currency"), _json("content"), _text("recorded_at")
)
round_ = Table(
    "round",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    _text("state"),
    _text("failed_in", null=True),
    _text("strategy"),
    _int("seed"),
    _json("config"),
    _text("config_sha256"),
    _json("criteria"),
    _text("opened_at"),
    _text("due_at"),
    _text("closed_at", null=True),
    _text("champion", null=True),
    _text("challenger", null=True),
    _flag("simulated"),
)
# The migration adds `one_live_round`, a partial unique index: one round at a time, whatever the code thinks. It is not
# declared here, because its per-dialect clauses would load every dialect at import (0.1 s).
state_transition = Table(
    "state_transition",
    metadata,
    Column("machine", String(32), primary_key=True),
    Column("from_state", String(32), primary_key=True),
    Column("to_state", String(32), primary_key=True),
)
step_run = Table(
    "step_run",
    metadata,
    _key("step_run_id"),
    _round(),
    _text("step"),
    _text("digest", index=True),
    _text("state"),
    _int("attempt"),
    _json("inputs"),
    _json("outputs", null=True),
    _text("started_at"),
    _text("finished_at", null=True),
    _float("seconds", null=True),
    _json("host", null=True),
    _text("error", null=True),
    _one_of("state", "running", "done", "failed"),
)
draft = Table(
    "draft",
    metadata,
    _key("draft_id"),
    _ref("exam_id", "exam.exam_id"),
    _text("model_digest"),
    _text("path"),
    _text("sha256"),
    _json("scores"),
    UniqueConstraint("exam_id", "model_digest"),
)
selection = Table(
    "selection",
    metadata,
    _key("selection_id"),
    _round(),
    _ref("exam_id", "exam.exam_id"),
    _int("rank"),
    _text("chosen_by"),
    _text("strategy"),
    _float("score", null=True),
    _float("inclusion_probability"),
    _json("explanation"),
    _one_of("chosen_by", "strategy", "control", "rework"),
    UniqueConstraint("round", "exam_id"),
)
assignment = Table(
    "assignment",
    metadata,
    _key("assignment_id"),
    _round(),
    _ref("exam_id", "exam.exam_id"),
    _ref("reader_id", "reader.reader_id"),
    _text("purpose"),
    _text("mode"),
    _float("mode_probability", null=True),
    _ref("draft_id", "draft.draft_id", null=True),
    _text("backend"),
    _text("state"),
    _float("expected_minutes", null=True),
    _text("dispatched_at"),
    _text("due_at"),
    _text("package_sha256"),
    _int("attempt"),
    _one_of("purpose", "training", "reference", "quality"),
    _one_of("mode", "assisted", "from_scratch"),
)
annotation = Table(
    "annotation",
    metadata,
    _key("annotation_id"),
    _ref("assignment_id", "assignment.assignment_id"),
    _ref("exam_id", "exam.exam_id"),
    _ref("reader_id", "reader.reader_id"),
    _int("revision"),
    _text("verdict"),
    _text("reason_code", null=True),
    _flag("remark_present"),
    _text("path"),
    _text("sha256"),
    _text("draft_id", null=True),
    _int("voxels_changed", null=True),
    _text("origin"),
    _flag("simulated"),
    _text("state"),
    _text("received_at"),
    _one_of("verdict", "accept", "correct", "reject", "scratch"),
    _one_of("origin", "measured", "typed", "imported", "simulated"),
    _one_of("state", "received", "valid", "invalid", "rejected"),
)
time_entry = Table(
    "time_entry",
    metadata,
    _key("time_entry_id"),
    _ref("annotation_id", "annotation.annotation_id"),
    _text("structure", null=True),
    _float("active_minutes"),
    _float("idle_minutes"),
    _float("away_minutes"),
    _text("origin"),
    _flag("simulated"),
    CheckConstraint("active_minutes >= 0 AND idle_minutes >= 0 AND away_minutes >= 0"),
)
# Raw events of readers at work, as browsers sent them; minutes are computed from these (redraft/worktime).
time_batch = Table(
    "time_batch",
    metadata,
    _key("batch_id"),
    _ref("assignment_id", "assignment.assignment_id"),
    _ref("reader_id", "reader.reader_id"),
    _text("sitting"),
    _int("number"),
    _float("sent_ms"),
    _text("received_at"),
    _json("events"),
    UniqueConstraint("assignment_id", "sitting", "number"),
)
# How long an assignment is kept for its reader before it may be given to another.
work_lease = Table(
    "work_lease",
    metadata,
    Column("assignment_id", String(64), ForeignKey("assignment.assignment_id"), primary_key=True),
    _text("expires_at"),
    _int("extensions"),
    _text("state"),
    _one_of("state", "held", "expired", "ended"),
)
# Second looks at annotations: flagged ones and a planned sample.
review = Table(
    "review",
    metadata,
    _key("review_id"),
    _ref("annotation_id", "annotation.annotation_id"),
    _round(),
    _text("why"),
    _json("rules"),
    _text("state"),
    _ref("account_id", "account.account_id", null=True),
    _text("reason_code", null=True),
    _flag("remark_present"),
    _text("opened_at"),
    _text("decided_at", null=True),
    _one_of("why", "soft", "sample", "reopened"),
    _one_of("state", "open", "accepted", "returned"),
)
# Raw events of reviewers and adjudicators at work, like time_batch; `record_id` is a review's or a consensus's.
look_batch = Table(
    "look_batch",
    metadata,
    _key("batch_id"),
    _text("record_id", index=True),
    _ref("account_id", "account.account_id"),
    _text("sitting"),
    _int("number"),
    _float("sent_ms"),
    _text("received_at"),
    _json("events"),
    UniqueConstraint("record_id", "account_id", "sitting", "number"),
)
# What several readers of one exam make together.
consensus = Table(
    "consensus",
    metadata,
    _key("consensus_id"),
    _ref("exam_id", "exam.exam_id"),
    _round(),
    _text("purpose"),
    _text("method"),
    _json("annotations"),
    _text("path"),
    _text("sha256"),
    _text("disagreement_path"),
    _text("disagreement_sha256"),
    _json("agreement"),
    _text("state"),
    _ref("account_id", "account.account_id", null=True),
    _text("at"),
    _one_of("method", "staple", "majority", "adjudicated"),
    _one_of("state", "agreed", "to_adjudicate", "adjudicated", "superseded"),
)
# Two readers on one exam and structure, blind to one another.
agreement = Table(
    "agreement",
    metadata,
    _key("agreement_id"),
    _round(),
    _ref("exam_id", "exam.exam_id"),
    _text("structure"),
    Column("first_id", String(64), ForeignKey("annotation.annotation_id"), nullable=False),
    Column("second_id", String(64), ForeignKey("annotation.annotation_id"), nullable=False),
    _float("dice", null=True),
    _float("surface_dice", null=True),
    _text("at"),
)
# Drafts that are wrong on purpose, to learn how often readers notice; their annotations never train anything.
seeded_error = Table(
    "seeded_error",
    metadata,
    Column("assignment_id", String(64), ForeignKey("assignment.assignment_id"), primary_key=True),
    _ref("exam_id", "exam.exam_id"),
    _round(),
    _text("structure"),
    _text("kind"),
    _text("truth_annotation_id"),
    _int("wrong_voxels"),
    _float("corrected", null=True),
    _text("outcome"),
    _one_of("outcome", "pending", "detected", "missed"),
)
# Exams that a reader sent back without a segmentation, and what follows from the reason.
rejection = Table(
    "rejection",
    metadata,
    _key("rejection_id"),
    _ref("assignment_id", "assignment.assignment_id"),
    _ref("exam_id", "exam.exam_id"),
    _ref("reader_id", "reader.reader_id"),
    _round(),
    _text("reason_code"),
    _text("consequence"),
    _text("at"),
    _one_of("consequence", "redo", "exclude"),
)
validation = Table(
    "validation",
    metadata,
    _key("validation_id"),
    _ref("annotation_id", "annotation.annotation_id"),
    _round(),
    _text("stage"),
    _flag("ok"),
    _json("hard"),
    _json("soft"),
    _text("result_path"),
    _text("result_sha256"),
    _text("at"),
    _one_of("stage", "arrival", "close"),
)
dataset_version = Table(
    "dataset_version",
    metadata,
    _key("dataset_version_id"),
    _round(),
    _text("dvc_md5"),
    _text("commit_sha"),
    _text("manifest_sha256"),
    _json("roles"),
    _int("exams"),
    _text("created_at"),
)
model = Table(
    "model",
    metadata,
    _key("model_digest"),
    _round(),
    _text("mlflow_run_id"),
    _text("mlflow_model_id"),
    _text("name"),
    _text("version"),
    _text("package_uri"),
    _text("manifest_sha256"),
    _text("training_digest"),
    _text("state"),
    _json("software"),
    _json("seeds"),
    _text("created_at"),
)
metric = Table(
    "metric",
    metadata,
    _key("metric_id"),
    _ref("model_digest", "model.model_digest"),
    _text("test_set"),
    _text("structure"),
    _text("name"),
    _float("mean", null=True),
    _float("lo", null=True),
    _float("hi", null=True),
    _int("n"),
    _text("dataset_digest"),
    _text("method"),
)
exam_metric = Table(
    "exam_metric",
    metadata,
    _key("exam_metric_id"),
    _ref("model_digest", "model.model_digest"),
    _text("test_set"),
    _ref("exam_id", "exam.exam_id"),
    _text("structure"),
    _float("dice", null=True),
    _float("surface_dice", null=True),
    _float("hd95_mm", null=True),
    _float("apl_mm", null=True),
)
decision = Table(
    "decision",
    metadata,
    _key("decision_id"),
    _round(),
    _text("kind"),
    _ref("model_digest", "model.model_digest"),
    _text("by_whom"),
    _text("identity"),
    _text("reason"),
    _json("gate"),
    _text("at"),
    _one_of("kind", "approve", "hold"),
    # `asserted` stands in records from before there were accounts; nothing writes it any more.
    _one_of("identity", "asserted", "authenticated", "policy"),
)
cost_entry = Table(
    "cost_entry",
    metadata,
    _key("cost_entry_id"),
    _round(),
    _text("kind"),
    _text("what"),
    _ref("exam_id", "exam.exam_id", null=True),
    _text("reader_id", null=True),
    _float("minutes", null=True),
    _text("amount"),
    _text("currency"),
    _json("rate"),
    _flag("simulated"),
    _text("at"),
    _one_of("kind", "expert", "reference", "compute", "storage"),
)
checkpoint = Table(
    "checkpoint",
    metadata,
    _key("checkpoint_id"),
    _round(),
    _int("seq"),
    _text("hash"),
    _text("signature"),
    _text("key_fingerprint"),
    _text("at"),
)
lease = Table(
    "lease",
    metadata,
    _key("name"),
    _text("holder"),
    _int("token"),
    _text("expires_at"),
)
audit_event = Table(
    "audit_event",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=False),
    _text("at"),
    _text("actor"),
    _text("kind", index=True),
    _json("payload"),
    _text("prev_hash"),
    _text("hash"),
)

DOMAIN = [table for table in metadata.sorted_tables if table.name not in ("audit_event", "state_transition")]
