from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from redraft.config.base import SecretRef
from redraft.config.sources import ReceiveSource
from redraft.errors import ConfigError, StorageError, TransferError
from redraft.security.keys import KeyRing
from redraft.security.pseudonyms import Pseudonyms
from redraft.sources import open_source
from redraft.sources.protocol import Offer, SourceContext
from redraft.sources.receive.inbox import InboxSource, inbox_folder
from redraft.sources.receive.transfers import Transfers

A, B = "a" * 20, "b" * 20


def section(**more: Any) -> ReceiveSource:
    allow = [{"ae_title": "MODALITY"}]
    return ReceiveSource.model_validate(
        {"kind": "receive", "name": "pacs", "allow": allow, "quiet_seconds": 30, **more}
    )


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    """Two series that came in an hour ago."""
    for series, count in ((A, 3), (B, 1)):
        for number in range(count):
            put(tmp_path / "inbox" / series / f"2.25.{number}.dcm", f"{series}{number}", age=3600)
    return tmp_path / "inbox"


def put(path: Path, content: str, age: float = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    os.utime(path, (time.time() - age,) * 2)
    return path


def offers(inbox: Path, **more: Any) -> dict[str, Offer]:
    return {offer.series_id: offer for offer in InboxSource(section(**more), inbox).discover()}


def content(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(folder.glob("*"))} if folder.is_dir() else {}


def test_each_series_is_offered_with_its_files(inbox: Path, tmp_path: Path) -> None:
    """The version is the same until a file comes or changes; fetching returns the files where they lie."""
    found = offers(inbox)
    assert {key: offer.files for key, offer in found.items()} == {A: 3, B: 1}
    assert offers(inbox)[A].version == found[A].version
    paths = InboxSource(section(), inbox).fetch(found[A], tmp_path / "unused")
    assert [path.name for path in paths] == ["2.25.0.dcm", "2.25.1.dcm", "2.25.2.dcm"]
    assert not (tmp_path / "unused").exists()
    put(inbox / A / "2.25.3.dcm", "new", age=3600)
    assert offers(inbox)[A].version != found[A].version
    assert offers(inbox)[B].version == found[B].version


def test_nothing_was_ever_received(tmp_path: Path) -> None:
    """An inbox that does not exist yet holds nothing."""
    source = InboxSource(section(), tmp_path / "absent")
    assert list(source.discover()) == [] == source.waiting()
    assert not (tmp_path / "absent").exists()


def test_a_series_is_left_alone_until_it_is_quiet(inbox: Path) -> None:
    """Counted from the last instance; the clock is the caller's."""
    path = put(inbox / A / "2.25.9.dcm", "last")
    arrived = path.stat().st_mtime
    for later, expected in ((29.0, {B}), (30.5, {A, B})):
        source = InboxSource(section(), inbox, now=lambda later=later: arrived + later)
        assert {offer.series_id for offer in source.discover()} == expected


def test_a_series_that_an_association_holds_is_not_offered(inbox: Path) -> None:
    """Neither while it is open nor after it broke, also when the series has long been quiet."""
    transfers = Transfers(inbox)
    transfers.begin("t1", "2.25.7")
    transfers.sends_to("t1", A)
    assert set(offers(inbox)) == {B}
    transfers.kept("t1", "2.25.7", A)
    transfers.begin("t1", "2.25.8")
    transfers.ended("t1", released=False)
    assert set(offers(inbox)) == {B}
    states = {w.series_id: w.state for w in InboxSource(section(), inbox).waiting()}
    assert states == {A: "unfinished", B: "ready"}
    transfers.begin("t2", "2.25.8")
    transfers.sends_to("t2", A)
    transfers.kept("t2", "2.25.8", A)
    transfers.ended("t2", released=True)
    assert set(offers(inbox)) == {A, B}


def test_no_instance_is_placed_before_its_series_is_held(inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the record cannot be written (disk full) nothing may be placed, each time anew."""
    transfers = Transfers(inbox)
    transfers.sends_to("t1", B)

    def full(path: Path, text: str, mode: int) -> None:
        raise StorageError("No space left.")

    monkeypatch.setattr("redraft.sources.receive.transfers.write_text", full)
    for uid in ("2.25.7", "2.25.8"):
        transfers.begin("t1", uid)
        with pytest.raises(StorageError):
            transfers.sends_to("t1", A)
        transfers.failed("t1", uid, A)
        assert set(offers(inbox)) == {A}, "nothing new lies in it"
    monkeypatch.undo()
    transfers.sends_to("t1", A)
    assert offers(inbox) == {}


def test_a_record_that_cannot_be_read_stops_everything(inbox: Path) -> None:
    """Which series it holds is unknown, so none is taken for complete."""
    Transfers(inbox)
    (inbox / ".transfers" / "t.broken.json").write_text("{")
    with pytest.raises(StorageError, match="cannot be read"):
        offers(inbox)


def test_what_came_between_offer_and_fetch_is_not_handed_on(inbox: Path, tmp_path: Path) -> None:
    """A series that changed, or that an association sends to again, is refused until the next intake."""
    offer = offers(inbox)[A]
    source = InboxSource(section(), inbox)
    transfers = Transfers(inbox)
    transfers.sends_to("t1", A)
    with pytest.raises(TransferError) as caught:
        source.fetch(offer, tmp_path / "unused")
    assert caught.value.rule == "changed_meanwhile"
    transfers.ended("t1", released=True)
    assert source.fetch(offer, tmp_path / "unused")
    put(inbox / A / "2.25.9.dcm", "new", age=3600)
    with pytest.raises(TransferError):
        source.fetch(offer, tmp_path / "unused")


@pytest.mark.parametrize("verdict", ["admitted", "duplicate", "quarantined"])
def test_what_is_on_record_leaves_the_inbox(inbox: Path, verdict: str) -> None:
    """The files that were offered go, those of other series stay."""
    source = InboxSource(section(), inbox)
    source.acknowledge(offers(inbox)[A], [verdict])
    assert set(offers(inbox)) == {B} and not (inbox / A).exists() and len(content(inbox / B)) == 1


def test_what_came_after_the_offer_makes_a_new_one(inbox: Path) -> None:
    """Acknowledging removes what was taken in and nothing that was not."""
    source = InboxSource(section(), inbox)
    offer = offers(inbox)[A]
    put(inbox / A / "2.25.9.dcm", "late", age=3600)
    put(inbox / A / "2.25.0.dcm", "replaced", age=1800)
    source.acknowledge(offer, ["admitted"])
    assert content(inbox / A) == {"2.25.0.dcm": "replaced", "2.25.9.dcm": "late"}
    assert offers(inbox)[A].files == 2


def test_refused_series_are_kept_apart_and_superseded(inbox: Path) -> None:
    """The sender may hold no copy; a later transmission replaces what was refused, and its admission removes it."""
    source = InboxSource(section(), inbox)
    before = content(inbox / A)
    source.acknowledge(offers(inbox)[A], ["admitted", "refused"])
    assert content(inbox / "refused" / A) == before and set(offers(inbox)) == {B}
    assert (inbox / "refused").stat().st_mode & 0o077 == 0
    assert ("refused", 3) in [(w.state, w.files) for w in source.waiting()]
    put(inbox / A / "2.25.1.dcm", "better", age=3600)
    source.acknowledge(offers(inbox)[A], ["refused"])
    assert content(inbox / "refused" / A) == {"2.25.1.dcm": "better"}
    put(inbox / A / "2.25.1.dcm", "good", age=3600)
    source.acknowledge(offers(inbox)[A], ["admitted"])
    assert not (inbox / "refused" / A).exists() and set(offers(inbox)) == {B}


def test_refused_instances_go_when_their_time_is_over(inbox: Path, context: Callable[..., SourceContext]) -> None:
    """An intake removes what arrived too long ago, and nothing else; without a limit everything stays."""
    day = 86_400
    put(inbox / "refused" / A / "2.25.1.dcm", "old", age=31 * day)
    put(inbox / "refused" / A / "2.25.2.dcm", "young", age=29 * day)
    put(inbox / "refused" / B / "2.25.1.dcm", "old", age=31 * day)
    put(inbox / B / "2.25.9.dcm", "old, and not refused", age=31 * day)
    assert InboxSource(section(), inbox).purge() == 0
    source = open_source(section(folder=str(inbox)), replace(context(), keep_days=30))
    assert {offer.series_id for offer in source.discover()} == {A, B}
    assert content(inbox / "refused" / A) == {"2.25.2.dcm": "young"} and not (inbox / "refused" / B).exists()
    assert "2.25.9.dcm" in content(inbox / B)
    assert InboxSource(section(), inbox, keep_days=30).purge() == 0


@pytest.mark.parametrize("verdict", ["admitted", "refused"])
@pytest.mark.parametrize("after", [0, 1, 2, 3])
def test_an_acknowledgement_that_was_killed_is_ended_first(
    inbox: Path, monkeypatch: pytest.MonkeyPatch, verdict: str, after: int
) -> None:
    """The rest of a series that is half gone is never offered as a series; nothing refused is lost."""
    before = content(inbox / A)
    offer = offers(inbox)[A]
    real = {name: getattr(os, name) for name in ("replace", "unlink")}
    calls = 0

    def killed(name: str) -> Any:
        def call(path: Any, *args: Any, **more: Any) -> Any:
            nonlocal calls
            if Path(path).parent.name == A:
                calls += 1
                if calls > after:
                    raise KeyboardInterrupt
            return real[name](path, *args, **more)

        return call

    for name in real:
        monkeypatch.setattr(os, name, killed(name))
    if after < 3:
        with pytest.raises(KeyboardInterrupt):
            InboxSource(section(), inbox).acknowledge(offer, [verdict])
        assert calls == after + 1
    else:
        InboxSource(section(), inbox).acknowledge(offer, [verdict])
    monkeypatch.undo()
    assert set(offers(inbox)) == {B}
    assert content(inbox / A) == {} and not list((inbox / ".leaving").iterdir())
    assert content(inbox / "refused" / A) == (before if verdict == "refused" else {})


def test_where_the_inbox_lies(tmp_path: Path) -> None:
    """Beside the vault, one for each source, or where project.yaml says; never inside the project."""

    def secret(reference: SecretRef) -> str:
        raise AssertionError(reference)

    project = tmp_path / "project"
    context = SourceContext(Pseudonyms(KeyRing.published_demo()), secret, project, tmp_path / "inbox")
    assert inbox_folder(section(), context) == tmp_path / "inbox" / "pacs"
    assert inbox_folder(section(folder="../elsewhere"), context) == tmp_path / "elsewhere"
    with pytest.raises(ConfigError, match="inside the project"):
        inbox_folder(section(folder="data/inbox"), context)
    shutil.rmtree(project, ignore_errors=True)
