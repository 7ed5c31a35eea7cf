"""Accounts, raw time, reviews, several readers of one exam, seeded errors, rejected exams."""

import sqlalchemy as sa
from alembic import op

from redraft.ledger.migrations.rebuild import allow
from redraft.ledger.triggers import statements

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TRANSITIONS = (
    ("RETURNED", "IN_REVIEW"), ("RETURNED", "REJECTED"), ("IN_REVIEW", "ACCEPTED"), ("IN_REVIEW", "RETURNED_TO_READER"),
    ("IN_REVIEW", "WITHDRAWN"), ("ACCEPTED", "IN_REVIEW"),
)
APPEND_ONLY = ("time_batch", "agreement", "rejection", "look_batch")


def upgrade() -> None:
    bind = op.get_bind()
    allow(bind, "selection", "chosen_by", ["strategy", "control"], ["strategy", "control", "rework"])
    allow(bind, "assignment", "purpose", ["training", "reference"], ["training", "reference", "quality"])
    allow(bind, "annotation", "state", ["received", "valid", "invalid"], ["received", "valid", "invalid", "rejected"])
    allow(
        bind, "decision", "identity", ["asserted", "authenticated"], ["asserted", "authenticated", "policy"]
    )
    op.create_table('account',
    sa.Column('account_id', sa.String(length=64), nullable=False),
    sa.Column('reader_id', sa.Text(), nullable=True),
    sa.Column('roles', sa.Text(), nullable=False),
    sa.Column('state', sa.Text(), nullable=False),
    sa.Column('added_at', sa.Text(), nullable=False),
    sa.Column('added_by', sa.Text(), nullable=False),
    sa.CheckConstraint("state IN ('active', 'removed')", name='state_known'),
    sa.PrimaryKeyConstraint('account_id')
    )
    op.create_table('consensus',
    sa.Column('consensus_id', sa.String(length=64), nullable=False),
    sa.Column('exam_id', sa.String(length=64), nullable=False),
    sa.Column('round', sa.Integer(), nullable=False),
    sa.Column('purpose', sa.Text(), nullable=False),
    sa.Column('method', sa.Text(), nullable=False),
    sa.Column('annotations', sa.Text(), nullable=False),
    sa.Column('path', sa.Text(), nullable=False),
    sa.Column('sha256', sa.Text(), nullable=False),
    sa.Column('disagreement_path', sa.Text(), nullable=False),
    sa.Column('disagreement_sha256', sa.Text(), nullable=False),
    sa.Column('agreement', sa.Text(), nullable=False),
    sa.Column('state', sa.Text(), nullable=False),
    sa.Column('account_id', sa.String(length=64), nullable=True),
    sa.Column('at', sa.Text(), nullable=False),
    sa.CheckConstraint("method IN ('staple', 'majority', 'adjudicated')", name='method_known'),
    sa.CheckConstraint("state IN ('agreed', 'to_adjudicate', 'adjudicated', 'superseded')", name='state_known'),
    sa.ForeignKeyConstraint(['account_id'], ['account.account_id'], ),
    sa.ForeignKeyConstraint(['exam_id'], ['exam.exam_id'], ),
    sa.ForeignKeyConstraint(['round'], ['round.number'], ),
    sa.PrimaryKeyConstraint('consensus_id')
    )
    op.create_index(op.f('ix_consensus_account_id'), 'consensus', ['account_id'], unique=False)
    op.create_index(op.f('ix_consensus_exam_id'), 'consensus', ['exam_id'], unique=False)
    op.create_index(op.f('ix_consensus_round'), 'consensus', ['round'], unique=False)
    op.create_table('rejection',
    sa.Column('rejection_id', sa.String(length=64), nullable=False),
    sa.Column('assignment_id', sa.String(length=64), nullable=False),
    sa.Column('exam_id', sa.String(length=64), nullable=False),
    sa.Column('reader_id', sa.String(length=64), nullable=False),
    sa.Column('round', sa.Integer(), nullable=False),
    sa.Column('reason_code', sa.Text(), nullable=False),
    sa.Column('consequence', sa.Text(), nullable=False),
    sa.Column('at', sa.Text(), nullable=False),
    sa.CheckConstraint("consequence IN ('redo', 'exclude')", name='consequence_known'),
    sa.ForeignKeyConstraint(['assignment_id'], ['assignment.assignment_id'], ),
    sa.ForeignKeyConstraint(['exam_id'], ['exam.exam_id'], ),
    sa.ForeignKeyConstraint(['reader_id'], ['reader.reader_id'], ),
    sa.ForeignKeyConstraint(['round'], ['round.number'], ),
    sa.PrimaryKeyConstraint('rejection_id')
    )
    op.create_index(op.f('ix_rejection_assignment_id'), 'rejection', ['assignment_id'], unique=False)
    op.create_index(op.f('ix_rejection_exam_id'), 'rejection', ['exam_id'], unique=False)
    op.create_index(op.f('ix_rejection_reader_id'), 'rejection', ['reader_id'], unique=False)
    op.create_index(op.f('ix_rejection_round'), 'rejection', ['round'], unique=False)
    op.create_table('seeded_error',
    sa.Column('assignment_id', sa.String(length=64), nullable=False),
    sa.Column('exam_id', sa.String(length=64), nullable=False),
    sa.Column('round', sa.Integer(), nullable=False),
    sa.Column('structure', sa.Text(), nullable=False),
    sa.Column('kind', sa.Text(), nullable=False),
    sa.Column('truth_annotation_id', sa.Text(), nullable=False),
    sa.Column('wrong_voxels', sa.Integer(), nullable=False),
    sa.Column('corrected', sa.Float(), nullable=True),
    sa.Column('outcome', sa.Text(), nullable=False),
    sa.CheckConstraint("outcome IN ('pending', 'detected', 'missed')", name='outcome_known'),
    sa.ForeignKeyConstraint(['assignment_id'], ['assignment.assignment_id'], ),
    sa.ForeignKeyConstraint(['exam_id'], ['exam.exam_id'], ),
    sa.ForeignKeyConstraint(['round'], ['round.number'], ),
    sa.PrimaryKeyConstraint('assignment_id')
    )
    op.create_index(op.f('ix_seeded_error_exam_id'), 'seeded_error', ['exam_id'], unique=False)
    op.create_index(op.f('ix_seeded_error_round'), 'seeded_error', ['round'], unique=False)
    op.create_table('time_batch',
    sa.Column('batch_id', sa.String(length=64), nullable=False),
    sa.Column('assignment_id', sa.String(length=64), nullable=False),
    sa.Column('reader_id', sa.String(length=64), nullable=False),
    sa.Column('sitting', sa.Text(), nullable=False),
    sa.Column('number', sa.Integer(), nullable=False),
    sa.Column('sent_ms', sa.Float(), nullable=False),
    sa.Column('received_at', sa.Text(), nullable=False),
    sa.Column('events', sa.Text(), nullable=False),
    sa.ForeignKeyConstraint(['assignment_id'], ['assignment.assignment_id'], ),
    sa.ForeignKeyConstraint(['reader_id'], ['reader.reader_id'], ),
    sa.PrimaryKeyConstraint('batch_id'),
    sa.UniqueConstraint('assignment_id', 'sitting', 'number')
    )
    op.create_index(op.f('ix_time_batch_assignment_id'), 'time_batch', ['assignment_id'], unique=False)
    op.create_index(op.f('ix_time_batch_reader_id'), 'time_batch', ['reader_id'], unique=False)
    op.create_table('work_lease',
    sa.Column('assignment_id', sa.String(length=64), nullable=False),
    sa.Column('expires_at', sa.Text(), nullable=False),
    sa.Column('extensions', sa.Integer(), nullable=False),
    sa.Column('state', sa.Text(), nullable=False),
    sa.CheckConstraint("state IN ('held', 'expired', 'ended')", name='state_known'),
    sa.ForeignKeyConstraint(['assignment_id'], ['assignment.assignment_id'], ),
    sa.PrimaryKeyConstraint('assignment_id')
    )
    op.create_table('agreement',
    sa.Column('agreement_id', sa.String(length=64), nullable=False),
    sa.Column('round', sa.Integer(), nullable=False),
    sa.Column('exam_id', sa.String(length=64), nullable=False),
    sa.Column('structure', sa.Text(), nullable=False),
    sa.Column('first_id', sa.String(length=64), nullable=False),
    sa.Column('second_id', sa.String(length=64), nullable=False),
    sa.Column('dice', sa.Float(), nullable=True),
    sa.Column('surface_dice', sa.Float(), nullable=True),
    sa.Column('at', sa.Text(), nullable=False),
    sa.ForeignKeyConstraint(['exam_id'], ['exam.exam_id'], ),
    sa.ForeignKeyConstraint(['first_id'], ['annotation.annotation_id'], ),
    sa.ForeignKeyConstraint(['round'], ['round.number'], ),
    sa.ForeignKeyConstraint(['second_id'], ['annotation.annotation_id'], ),
    sa.PrimaryKeyConstraint('agreement_id')
    )
    op.create_index(op.f('ix_agreement_exam_id'), 'agreement', ['exam_id'], unique=False)
    op.create_index(op.f('ix_agreement_round'), 'agreement', ['round'], unique=False)
    op.create_table('review',
    sa.Column('review_id', sa.String(length=64), nullable=False),
    sa.Column('annotation_id', sa.String(length=64), nullable=False),
    sa.Column('round', sa.Integer(), nullable=False),
    sa.Column('why', sa.Text(), nullable=False),
    sa.Column('rules', sa.Text(), nullable=False),
    sa.Column('state', sa.Text(), nullable=False),
    sa.Column('account_id', sa.String(length=64), nullable=True),
    sa.Column('reason_code', sa.Text(), nullable=True),
    sa.Column('remark_present', sa.Boolean(), nullable=False),
    sa.Column('opened_at', sa.Text(), nullable=False),
    sa.Column('decided_at', sa.Text(), nullable=True),
    sa.CheckConstraint("state IN ('open', 'accepted', 'returned')", name='state_known'),
    sa.CheckConstraint("why IN ('soft', 'sample', 'reopened')", name='why_known'),
    sa.ForeignKeyConstraint(['account_id'], ['account.account_id'], ),
    sa.ForeignKeyConstraint(['annotation_id'], ['annotation.annotation_id'], ),
    sa.ForeignKeyConstraint(['round'], ['round.number'], ),
    sa.PrimaryKeyConstraint('review_id')
    )
    op.create_index(op.f('ix_review_account_id'), 'review', ['account_id'], unique=False)
    op.create_index(op.f('ix_review_annotation_id'), 'review', ['annotation_id'], unique=False)
    op.create_index(op.f('ix_review_round'), 'review', ['round'], unique=False)
    op.create_table('look_batch',
    sa.Column('batch_id', sa.String(length=64), nullable=False),
    sa.Column('record_id', sa.Text(), nullable=False),
    sa.Column('account_id', sa.String(length=64), nullable=False),
    sa.Column('sitting', sa.Text(), nullable=False),
    sa.Column('number', sa.Integer(), nullable=False),
    sa.Column('sent_ms', sa.Float(), nullable=False),
    sa.Column('received_at', sa.Text(), nullable=False),
    sa.Column('events', sa.Text(), nullable=False),
    sa.ForeignKeyConstraint(['account_id'], ['account.account_id'], ),
    sa.PrimaryKeyConstraint('batch_id'),
    sa.UniqueConstraint('record_id', 'account_id', 'sitting', 'number')
    )
    op.create_index(op.f('ix_look_batch_account_id'), 'look_batch', ['account_id'], unique=False)
    op.create_index(op.f('ix_look_batch_record_id'), 'look_batch', ['record_id'], unique=False)
    transitions = sa.table("state_transition", sa.column("machine"), sa.column("from_state"), sa.column("to_state"))
    op.bulk_insert(
        transitions,
        [{"machine": "assignment", "from_state": source, "to_state": target} for source, target in TRANSITIONS],
    )
    for statement in statements(bind.dialect.name, APPEND_ONLY, machines=()):
        op.execute(statement)
