"""Folder trees: every file in one offer, headers read once, and offers that change when what lies there changes."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from redraft.errors import ServiceError
from redraft.security.keys import KeyRing
from redraft.security.pseudonyms import Pseudonyms
from redraft.sources.folder import BATCH, FolderSource
from redraft.sources.index import Seen, SourceIndex
from redraft.sources.protocol import Offer

PSEUDONYMS = Pseudonyms(KeyRing.published_demo())


class Tree:
    """A folder of files whose first word is their series; counts how often each is opened."""

    def __init__(self, top: Path, index: Path):
        self.top, self.index, self.opened = top, index, Counter[str]()

    def write(self, path: str, series: str, more: str = "") -> Path:
        target = self.top / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(f"{series} {more}")
        return target

    def scan(self, batches: Iterable[list[str]]) -> Iterator[list[tuple[str | None, str | None]]]:
        for batch in batches:
            assert len(batch) <= BATCH
            self.opened.update(batch)
            words = [Path(path).read_text().split()[0] for path in batch]
            yield [(None, "not_dicom") if word == "-" else (word, None) for word in words]

    def offers(self, *paths: Path) -> list[Offer]:
        """Look through the tree with an index that was closed in between."""
        self.opened.clear()
        index = SourceIndex(self.index)
        try:
            return list(FolderSource("folder", paths or [self.top], PSEUDONYMS, index, self.scan).discover())
        finally:
            index.close()


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path / "tree", tmp_path / "index.db")


def names(offer: Offer) -> list[str]:
    return sorted(path.name for path in offer.handle[0])


def test_a_series_is_one_offer_wherever_its_files_lie(tree: Tree) -> None:
    """Mixed folders, split series, strays: every file once."""
    for n in range(3):
        tree.write(f"a/{n}", "A"), tree.write(f"a/deep/B{n}", "B"), tree.write(f"b/{n}x", "A")
    tree.write("a/letter.txt", "-"), tree.write("DICOMDIR", "A"), tree.write("b/.hidden", "A")
    tree.write("c/one.nii.gz", "?"), tree.write("labelsTr/one.nii.gz", "?")
    offers = tree.offers()
    files = {(offer.refused or offer.series_id): names(offer) for offer in offers if offer.refused or offer.files > 1}
    assert files["A"] == sorted(["0", "1", "2", "0x", "1x", "2x"]) and files["B"] == ["B0", "B1", "B2"]
    assert files["not_dicom"] == ["letter.txt"]
    assert sorted(offer.refused for offer in offers if offer.refused) == ["not_an_image", "not_an_image", "not_dicom"]
    everything = [path for offer in offers for path in offer.handle[0]]
    assert sorted(everything) == sorted(path for path in tree.top.rglob("*") if path.is_file())
    assert sum(offer.files for offer in offers) == len(everything)
    images = [offer for offer in offers if offer.refused is None and offer.handle[0][0].suffix == ".gz"]
    assert {offer.series_id for offer in images} >= {PSEUDONYMS.series_id("nifti/one")}
    assert len({offer.series_id for offer in images}) == 2


def test_unchanged_files_are_not_opened_again(tree: Tree) -> None:
    """The second time no header is read; a new, a changed and a replaced file are read, and only those."""
    for n in range(BATCH * 2 + 5):
        tree.write(f"f{n % 3}/{n}", "ABC"[n % 3])
    tree.write("f0/stray", "-")
    first = tree.offers()
    assert sum(tree.opened.values()) == BATCH * 2 + 6
    again = tree.offers()
    assert not tree.opened
    assert [(o.series_id, o.version, o.refused) for o in again] == [(o.series_id, o.version, o.refused) for o in first]
    new, changed = tree.write("f1/new", "B"), tree.write("f0/0", "A", "more")
    state = (tree.top / "f2/2").stat()
    replaced = tree.write("f2/2.tmp", "C")
    os.utime(replaced, ns=(state.st_atime_ns, state.st_mtime_ns))
    replaced.rename(tree.top / "f2/2")  # the same name, size and time of change, another file
    third = tree.offers()
    assert set(tree.opened) == {str(new), str(changed), str(tree.top / "f2/2")}
    before = {offer.series_id: offer.version for offer in first}
    assert all(offer.version != before[offer.series_id] for offer in third if offer.refused is None)


def test_versions_follow_the_content_of_a_series(tree: Tree) -> None:
    """Taking a file away changes the version of its series and of no other; putting it back gives the first again."""
    for n in range(4):
        tree.write(f"x/{n}", "A"), tree.write(f"y/{n}", "B")
    versions = {offer.series_id: offer.version for offer in tree.offers()}
    kept = tree.top.parent / "kept"
    os.rename(tree.top / "x" / "2", kept)
    without = {offer.series_id: offer.version for offer in tree.offers()}
    assert without["A"] != versions["A"] and without["B"] == versions["B"]
    shutil.rmtree(tree.top / "y")
    assert [offer.series_id for offer in tree.offers()] == ["A"]


def test_overlapping_paths_count_once(tree: Tree) -> None:
    """A folder named twice, a folder inside it and a file of it are still one file each; a file alone forgets none."""
    for n in range(3):
        tree.write(f"a/b/{n}", "A")
    (offer,) = tree.offers(tree.top, tree.top / "a", tree.top / "a" / "b" / "1", tree.top)
    assert names(offer) == ["0", "1", "2"]
    (single,) = tree.offers(tree.top / "a" / "b" / "1")
    assert names(single) == ["1"] and not tree.opened
    tree.offers()
    assert not tree.opened


def test_links_to_folders_are_not_entered(tree: Tree, tmp_path: Path) -> None:
    """A link that leads out of the tree, or in a circle, is followed only where it is named itself."""
    tree.write("a/1", "A")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "2").write_text("A")
    (tree.top / "a" / "out").symlink_to(outside)
    (tree.top / "a" / "circle").symlink_to(tree.top)
    assert [names(offer) for offer in tree.offers()] == [["1"]]
    assert [names(offer) for offer in tree.offers(tree.top / "a" / "out")] == [["2"]]


def test_a_folder_that_vanishes_is_an_error(tree: Tree) -> None:
    """Left out silently it would look like a smaller archive; the error quotes no path."""
    with pytest.raises(ServiceError) as caught:
        tree.offers(tree.top / "Abendroth" / "file")
    assert "Abendroth" not in str(caught.value)


def test_a_damaged_index_starts_anew(tree: Tree) -> None:
    """It only remembers: what is no database, or half of one, is read again."""
    tree.write("a/1", "A")
    first = tree.offers()
    tree.index.write_bytes(b"no database at all" * 100)
    assert [offer.version for offer in tree.offers()] == [offer.version for offer in first]
    assert sum(tree.opened.values()) == 1


def test_the_index_holds_no_clear_name(tree: Tree) -> None:
    """Neither folder nor file name, in any of its files."""
    tree.write("Abendroth/Leopoldine.dcm", "A")
    tree.offers()
    content = b"".join(path.read_bytes() for path in tree.index.parent.glob("index.db*"))
    assert b"Abendroth" not in content and b"Leopoldine" not in content


def test_outcomes_are_kept_by_version(tmp_path: Path) -> None:
    """The last version's outcome with the rules that gave it; another version has none."""
    index = SourceIndex(tmp_path / "i.db")
    index.settle("s", "1", "r", [{"verdict": "refused"}])
    index.keep(b"p", [(b"t", Seen("x", "s", None))])
    index.close()
    index = SourceIndex(tmp_path / "i.db")
    assert index.outcome("s", "1") == ("r", [{"verdict": "refused"}])
    assert index.outcome("s", "2") is None and index.outcome("t", "1") is None
    assert index.seen(b"p") == {b"t": Seen("x", "s", None)}
    index.settle("s", "2", "r", [])
    assert index.outcome("s", "1") is None and index.outcome("s", "2") == ("r", [])
