"""4D and several echoes: one volume for each value of what tells them apart, or a refusal; copies dropped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from redraft.dicom.series import ReadRules, SeriesVolume, open_series
from redraft.errors import ExamError

SLICES = 4


def volumes(paths: Sequence[Path]) -> list[SeriesVolume]:
    found = list(open_series(paths, ReadRules()).volumes())
    assert all(isinstance(item, SeriesVolume) for item in found)
    return found  # type: ignore[return-value]


def refused(paths: Sequence[Path]) -> tuple[str, dict[str, object]]:
    with pytest.raises(ExamError) as caught:
        open_series(paths, ReadRules())
    return caught.value.rule, caught.value.measured


@pytest.fixture
def several(series: Callable, tmp_path: Path) -> Callable[..., list[Path]]:
    """One series made of several on one grid: `values[n]` is set in the n-th one's slices, whose values are all n."""

    def make(
        name: str, values: Sequence[object], also: Callable[[Dataset, int, int], None] | None = None
    ) -> list[Path]:
        base = series()
        paths = []
        for n, value in enumerate(values):
            for k, path in enumerate(base.paths):
                dataset = pydicom.dcmread(path)
                dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"2.25.1{n}{k}"
                dataset.PixelData = np.full((5, 7), 1024 + n, "<u2").tobytes()
                setattr(dataset, name, value)
                if also is not None:
                    also(dataset, n, k)
                paths.append(tmp_path / f"{(n * 7 + k * 3) % 97:02d}-{n}-{k}.dcm")
                dataset.save_as(paths[-1])
        return sorted(paths)

    return make


@pytest.mark.parametrize(
    ("name", "values", "keys"),
    [
        ("TemporalPositionIdentifier", [2, 10, 1], ["1", "2", "10"]),
        ("EchoNumbers", [1, 2], ["1", "2"]),
        ("EchoTime", ["4.60", "2.3"], ["2.3", "4.6"]),
        ("InversionTime", ["100", "50"], ["50", "100"]),
        ("FrameReferenceTime", ["60000", "5000.5"], ["5000.5", "60000"]),
        ("AcquisitionNumber", [3, 12], ["3", "12"]),
        ("DiffusionBValue", [0.0, 1000.0], ["0", "1000"]),
        ("ImageType", [["ORIGINAL", "PRIMARY", "M"], ["ORIGINAL", "PRIMARY", "P"]],
         ["ORIGINAL\\PRIMARY\\M", "ORIGINAL\\PRIMARY\\P"]),
    ],
)  # fmt: skip
def test_one_volume_for_each_value(several: Callable, name: str, values: list, keys: list[str]) -> None:
    """Ordered by the value as a number, each with its own slices and values; all on one grid."""
    found = volumes(several(name, values))
    assert [item.key for item in found] == [f"{name}={key}" for key in keys]
    rank = sorted(range(len(values)), key=lambda n: values[n] if not isinstance(values[n], str) else float(values[n]))
    for item, n in zip(found, rank, strict=True):
        np.testing.assert_array_equal(item.volume.array, np.full((7, 5, SLICES), n))
        assert [slice_.uid for slice_ in item.slices] == [f"2.25.1{n}{k}" for k in range(SLICES)]
        np.testing.assert_array_equal(item.volume.affine, found[0].volume.affine)


def test_two_attributes_together(several: Callable) -> None:
    """Three diffusion directions beside one volume without: b-value and direction tell them apart."""

    def directions(dataset: Dataset, n: int, k: int) -> None:
        if n:
            dataset.DiffusionGradientOrientation = [float(n == 1), float(n == 2), float(n == 3)]

    found = volumes(several("DiffusionBValue", [0.0, 800.0, 800.0, 800.0], directions))
    assert [item.volume.array[0, 0, 0] for item in found] == [0, 3, 2, 1]
    assert found[0].key.startswith("DiffusionBValue=0") and len({item.key for item in found}) == 4


def test_phases_of_a_heartbeat_are_told_apart_by_their_order(several: Callable) -> None:
    """Trigger times differ from slice to slice: what counts is their order at one place."""

    def trigger(dataset: Dataset, n: int, k: int) -> None:
        dataset.TriggerTime = f"{[400, 20, 210][n] + 7 * k}"

    found = volumes(several("AcquisitionNumber", [1, 1, 1], trigger))
    assert [item.key for item in found] == ["TriggerTime=#1", "TriggerTime=#2", "TriggerTime=#3"]
    assert [item.volume.array[0, 0, 0] for item in found] == [1, 2, 0]


def test_blank_slices_of_two_volumes_are_no_copies(several: Callable) -> None:
    """Equal pixels at one place of two time points: both stay."""

    def blank(dataset: Dataset, n: int, k: int) -> None:
        if k == 0:
            dataset.PixelData = bytes(70)

    found = volumes(several("TemporalPositionIdentifier", [1, 2], blank))
    assert [item.volume.shape for item in found] == [(7, 5, SLICES)] * 2 and not found[0].measured


def test_acquisitions_one_behind_the_other_are_one_volume(series: Callable) -> None:
    """Numbers that change along the table tell nothing apart."""
    files = series((7, 5, 6))
    files.edit(lambda dataset, k: setattr(dataset, "AcquisitionNumber", k // 2))
    (found,) = volumes(files.paths)
    assert found.key == "" and found.volume.shape == (7, 5, 6)


def test_parts_of_unequal_slices_are_refused(several: Callable) -> None:
    """A time point with a slice less would be a volume with a hole."""
    paths = several("TemporalPositionIdentifier", [1, 2])
    rule, measured = refused(paths[:-1])
    assert rule == "several_volumes" and measured == {"by": "TemporalPositionIdentifier", "slices": [3, 4]}


def test_identical_copies_are_dropped_and_counted(series: Callable, several: Callable, tmp_path: Path) -> None:
    """By their pixels: sent twice as they are, or under another UID; in a series of several volumes too."""
    files = series()
    (tmp_path / "again").mkdir()
    for n, path in enumerate(files.paths[:3]):
        dataset = pydicom.dcmread(path)
        if n:
            dataset.SOPInstanceUID = f"2.25.{n}"
        if n == 2:
            dataset.AcquisitionNumber = 9
        dataset.save_as(tmp_path / "again" / path.name)
    (found,) = volumes([*files.paths, *(tmp_path / "again").iterdir()])
    assert found.measured == {"identical_duplicates_dropped": 3}
    np.testing.assert_array_equal(found.volume.array, files.hu)
    paths = several("EchoNumbers", [1, 2])
    found_twice = volumes([*paths, *paths])
    assert [item.key for item in found_twice] == ["EchoNumbers=1", "EchoNumbers=2"]
    assert found_twice[0].measured == {"identical_duplicates_dropped": 8}


def test_slices_that_differ_at_one_place_are_refused(several: Callable) -> None:
    """Nothing says which one is right; time of day alone means nothing."""

    def time(dataset: Dataset, n: int, k: int) -> None:
        dataset.ContentTime = dataset.AcquisitionTime = f"10{n:02d}00"

    assert refused(several("AcquisitionNumber", [1, 1], time)) == ("conflicting_duplicates", {"slices": 2})


def test_one_uid_for_two_images_is_refused(series: Callable, tmp_path: Path) -> None:
    """Two files of one SOP Instance UID and place whose pixels differ."""
    files = series()
    dataset = pydicom.dcmread(files.paths[0])
    dataset.PixelData = bytes(70)
    dataset.save_as(tmp_path / "other.dcm")
    assert refused([*files.paths, tmp_path / "other.dcm"])[0] == "conflicting_duplicates"


def test_volumes_that_lie_between_each_other_are_not_resampled(series: Callable) -> None:
    """Two acquisitions half a step apart look like one uneven series; mixing them would invent an image."""
    files = series((7, 5, 8))

    def two(dataset: Dataset, k: int) -> None:
        dataset.AcquisitionNumber, dataset.ImagePositionPatient = 1 + k % 2, [0, 0, k // 2 * 3 + k % 2 * 1.3]

    files.edit(two)
    with pytest.raises(ExamError) as caught:
        open_series(files.paths, ReadRules(uneven_spacing="resample"))
    assert (caught.value.rule, caught.value.measured) == ("several_volumes", {"by": "AcquisitionNumber", "volumes": 2})
    files.edit(lambda dataset, k: setattr(dataset, "AcquisitionNumber", 1 + k // 4))
    (volume,) = open_series(files.paths, ReadRules(uneven_spacing="resample")).volumes()
    assert isinstance(volume, SeriesVolume) and volume.resampled
