"""Finished work as it comes back from where readers work, and refused work as it goes back to them."""

from __future__ import annotations

from collections.abc import Callable

from redraft.digest import sha256_file, sha256_json
from redraft.errors import LabelError
from redraft.project import Project
from redraft.work_leases import OUT
from tasks.dispatch.backends import FolderBackend
from tasks.dispatch.open_backend import backend_for
from tasks.dispatch.packages import RESULT
from tasks.dispatch.refs import CollectRef, ReturnedRef


def pick_up(project: Project) -> CollectRef:
    """Finished work of all that is out. Unreadable work stays where it is and is named; strangers are named too."""
    backend = backend_for(project)
    rows = {row["assignment_id"]: row for row in project.ledger.rows("assignment")}
    open_now = [name for name, row in rows.items() if row["state"] in (*OUT, "CARRIED_OVER")]
    unreadable: dict[str, str] = {}

    def failed(assignment: str, error: LabelError) -> None:
        unreadable[assignment] = error.rule

    refuse = rejected(project, backend)
    items = []
    for item in backend.collect(open_now, failed):
        if item.label_sha256 is not None and refuse(item.assignment_id, item.label_sha256):
            continue
        label = item.label
        inside = label is not None and label.is_relative_to(project.root)
        items.append(
            ReturnedRef(
                assignment_id=item.assignment_id,
                label=None if label is None else label.relative_to(project.root).as_posix() if inside else str(label),
                label_sha256=item.label_sha256,
                result=item.result.model_dump(mode="json"),
            )
        )
    for stranger in backend.strangers(set(rows)):
        unreadable[f"unknown-{sha256_json(stranger)[:12]}"] = "never_dispatched"
    return CollectRef(items=tuple(items), unreadable=unreadable)


def rejected(project: Project, backend: FolderBackend) -> Callable[[str, str], bool]:
    """Whether exactly this work was refused before; then it is sent back (again, after a crash) instead of judged."""
    refused = {
        (row["assignment_id"], row["sha256"]): row["annotation_id"]
        for row in project.ledger.rows("annotation", state="invalid")
    }
    why = {row["annotation_id"]: row["hard"] for row in project.ledger.rows("validation")}

    def check(assignment: str, label_sha256: str) -> bool:
        annotation = refused.get((assignment, label_sha256))
        if annotation is None:
            return False
        backend.send_back(assignment, [item["message"] for item in why.get(annotation, [])])
        return True

    return check


def hand_back(project: Project) -> int:
    """Send refused work back to its reader with the reasons; returns how many packages went back."""
    backend = backend_for(project)
    check = rejected(project, backend)
    count = 0
    for row in project.ledger.rows("assignment", state="RETURNED_TO_READER"):
        folder = backend.work / row["assignment_id"]
        label = backend.label_of(row["assignment_id"])
        if (folder / RESULT).exists() and label is not None:
            count += check(row["assignment_id"], sha256_file(label))
    return count
