"""The ledger: tables, transitions, lease, and the audit chain that vouches for them."""

from redraft.ledger.lease import Lease, hold_lease
from redraft.ledger.store import Ledger, Tx
from redraft.ledger.transitions import (
    AssignmentState,
    RoundState,
    fail_round,
    move_assignment,
    move_round,
    resume_round,
)
from redraft.ledger.verify import Broken, VerifyReport, sign_checkpoint_payload, verify_checkpoints, verify_ledger

__all__ = [
    "AssignmentState",
    "Broken",
    "Lease",
    "Ledger",
    "RoundState",
    "Tx",
    "VerifyReport",
    "fail_round",
    "hold_lease",
    "move_assignment",
    "move_round",
    "resume_round",
    "sign_checkpoint_payload",
    "verify_checkpoints",
    "verify_ledger",
]
