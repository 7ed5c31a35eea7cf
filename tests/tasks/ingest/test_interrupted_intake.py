"""Disks that fill, ledgers from backups, processes that were killed: nothing is lost, left behind or told twice."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from redraft.errors import StorageError
from redraft.ledger import verify_ledger
from redraft.project import Project
from redraft.sources.folder import FolderSource
from redraft.sources.protocol import Offer
from tasks.ingest import admit
from tasks.ingest.admit import take_in

NOW = datetime(2026, 3, 2, 8, 30, tzinfo=UTC)


def test_a_source_that_cannot_be_told_is_told_by_the_next_intake(
    project: Callable[..., Project], offered: Path, add: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its disk is full when the exam is on record: the error is its own, and nothing is recorded twice."""
    monkeypatch.setattr(admit, "BATCH", 1)
    told: list[list[str]] = []
    full = True

    def acknowledge(self: FolderSource, offer: Offer, verdicts: Sequence[str]) -> None:
        if full:
            raise StorageError("The inbox is full.", "Make room.")
        told.append(list(verdicts))

    monkeypatch.setattr(FolderSource, "acknowledge", acknowledge)
    place = project()
    add("one")
    with pytest.raises(StorageError, match="inbox is full"):
        take_in(place, [offered], NOW, "test", workers=0)
    assert len(place.ledger.rows("exam")) == 1
    full = False
    (receipt,) = take_in(place, [offered], NOW, "test", workers=0)
    assert receipt.verdict == "duplicate" and told == [["duplicate"]]
    assert len(place.ledger.rows("exam")) == len(place.ledger.rows("receipt")) == 1
    assert not verify_ledger(place.ledger).broken


def test_a_ledger_from_a_backup_gets_every_receipt_again(
    project: Callable[..., Project], offered: Path, add: Callable, tmp_path: Path
) -> None:
    """The index still knows what became of each series; the ledger is what counts."""
    place = project()
    place.ledger.engine.dispose()
    ledger = place.root / ".redraft" / "ledger.db"
    shutil.copy(ledger, tmp_path / "backup.db")
    add("whole")
    add("tilted", lambda dataset, k: setattr(dataset, "ImagePositionPatient", [0, k, 3 * k]))
    add("captured", lambda dataset, k: setattr(dataset, "BurnedInAnnotation", "YES"))
    verdicts = sorted(receipt.verdict for receipt in take_in(place, [offered], NOW, "test", workers=0))
    before = sorted((row["receipt_id"], row["verdict"]) for row in place.ledger.rows("receipt"))
    assert verdicts == ["admitted", "quarantined", "refused"] and len(before) == 3
    place.ledger.engine.dispose()
    for path in ledger.parent.glob("ledger.db*"):
        path.unlink()
    shutil.copy(tmp_path / "backup.db", ledger)
    place = Project.open(place.root)
    assert not place.ledger.rows("receipt")
    take_in(place, [offered], NOW, "test", workers=0)
    assert sorted((row["receipt_id"], row["verdict"]) for row in place.ledger.rows("receipt")) == before
    # And a third time nothing is read or recorded.
    assert {r.verdict for r in take_in(place, [offered], NOW, "test", workers=0)} == {
        "duplicate", "quarantined", "refused",
    }  # fmt: skip
    assert len(place.ledger.rows("receipt")) == 3


def test_what_a_killed_intake_left_in_the_spool_goes(
    project: Callable[..., Project], offered: Path, add: Callable
) -> None:
    """Fetched files in clear are kept for a source that will go on with them, and for no other."""
    place = project(("ingest:\n", f"ingest:\n  sources: [{{kind: folder, path: {offered}}}]\n"))
    add("one")
    left = [place.vault_dir / "spool" / name / "series-0123" / "1.dcm" for name in ("folder", "gone")]
    for path in left:
        path.parent.mkdir(parents=True, mode=0o700)
        path.write_bytes(b"a patient's header")
    take_in(place, [offered], NOW, "test", workers=0)
    assert [path.exists() for path in left] == [False, True]  # of other sources nothing is known here
    take_in(place, None, NOW, "test", workers=0)
    assert [path.exists() for path in left] == [False, False]
