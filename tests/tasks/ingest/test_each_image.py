"""What every image of a series says counts, not only what the first one does; and what of it a record may hold."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pydicom
import pytest

from redraft.dicom import series as series_module
from redraft.project import Project
from redraft.segmentation.exam import ExamGeometry
from redraft.selection import Selection
from tasks.ingest.admit import take_in
from tasks.ingest.jobs import Job, Setup
from tasks.ingest.reading import reader

NOW = datetime(2026, 3, 2, 8, 30, tzinfo=UTC)


def records(place: Project) -> list[dict[str, Any]]:
    """Every exam.json, in the order of the exams' ids."""
    return [json.loads(path.read_text()) for path in sorted(place.data.rglob("exam.json"))]


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("RecognizableVisualFeatures", "YES", "recognizable_visual_features"),
        ("ImageType", ["DERIVED", "PRIMARY", "DOSE REPORT"], "screen_capture"),
        ("ConversionType", "SD", "converted_from_picture"),
    ],
)
@pytest.mark.parametrize("last", [0, 3])
def test_one_picture_of_a_page_sets_its_series_aside(
    project: Callable[..., Project], offered: Path, add: Callable, name: str, value: object, rule: str, last: int
) -> None:
    """Wherever in the series it lies; all of its files go into the vault and none into the project."""
    place = project()
    add("series", lambda dataset, k: setattr(dataset, name, value) if k == last else None)
    (receipt,) = take_in(place, [offered], NOW, "test", workers=0)
    assert (receipt.verdict, receipt.rule) == ("quarantined", rule)
    assert len(list(place.vault.originals(receipt.series_id))) == 4
    assert not list(place.data.rglob("image.nii.gz"))


def test_typed_text_that_tells_volumes_apart_is_in_no_receipt(
    project: Callable[..., Project], offered: Path, add: Callable
) -> None:
    """An image type can hold a name; the volumes are still two, and the receipts say by which attribute."""
    place = project()

    def change(dataset: pydicom.Dataset, k: int) -> None:
        dataset.ImagePositionPatient = [0, 0, 3 * (k % 2)]
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "M" if k < 2 else "DOE JANE, B=2"]

    add("series", change)
    receipts = take_in(place, [offered], NOW, "test", workers=0)
    said = sorted(receipt.measured["volume"] for receipt in receipts)
    assert said == ["ImageType=ORIGINAL\\PRIMARY\\M", "ImageType=ORIGINAL\\PRIMARY\\OTHER"]
    kept = json.dumps([place.ledger.rows("receipt"), records(place)], default=str)
    kept += (place.root / ".redraft" / "cache" / "sources.db").read_bytes().decode("latin-1")
    assert "JANE" not in kept


def test_each_volume_has_the_header_of_its_own_images(
    project: Callable[..., Project], offered: Path, add: Callable
) -> None:
    """Of two diffusion weightings in one series the record of each names its own."""
    place = project()

    def change(dataset: pydicom.Dataset, k: int) -> None:
        dataset.ImagePositionPatient = [0, 0, 3 * (k % 2)]
        dataset.DiffusionBValue = 1000.0 * (k // 2)

    add("series", change)
    receipts = take_in(place, [offered], NOW, "test", workers=0)
    volumes = {receipt.exam_id: receipt.measured["volume"] for receipt in receipts}
    found = {volumes[record["exam_id"]]: record["header"]["00189087"]["Value"] for record in records(place)}
    assert found == {"DiffusionBValue=0": [0.0], "DiffusionBValue=1000": [1000.0]}


def test_resampled_slices_are_no_images_even_where_they_nearly_are(
    project: Callable[..., Project], offered: Path, add: Callable
) -> None:
    """As many slices as images, each nearly in place: a segmentation still may not go by their number."""
    place = project(("ingest:\n", "ingest:\n  uneven_spacing: resample\n"))
    heights = (0, 3, 6.1, 9.1)
    add("series", lambda dataset, k: setattr(dataset, "ImagePositionPatient", [0, 0, heights[k]]))
    (receipt,) = take_in(place, [offered], NOW, "test", workers=0)
    assert "resampled" in receipt.measured, receipt
    (record,) = records(place)
    assert record["shape"][2] == len(record["slices"]["instances"]) == 4
    assert not ExamGeometry.of(record).on_grid


def test_of_a_lost_series_nothing_is_published(
    project: Callable[..., Project], offered: Path, add: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second volume asks for too much memory when the first is written: the series is refused, data/ is empty."""
    place = project()
    stack, calls = series_module.stack, []

    def short_of_memory(frames: Any) -> Any:
        calls.append(len(frames))
        if len(calls) == 2:
            raise MemoryError
        return stack(frames)

    def change(dataset: pydicom.Dataset, k: int) -> None:
        dataset.ImagePositionPatient = [0, 0, 3 * (k % 2)]
        dataset.EchoNumbers = 1 + k // 2

    paths = tuple(add("series", change))
    monkeypatch.setattr(series_module, "stack", short_of_memory)
    job = Job("0" * 20, "folder", "dicom", paths, Selection())
    with pytest.raises(MemoryError):
        reader(Setup.of(place))(job)
    assert calls == [2, 2]
    assert not [path for path in (place.data / "exams").rglob("*") if path.is_file()]
    assert len(reader(Setup.of(place))(job)) == 2
    assert len(list((place.data / "exams").rglob("image.nii.gz"))) == len(records(place)) == 2
    assert not list(place.data.rglob(".partial-*"))
