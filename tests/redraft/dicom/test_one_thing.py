"""One volume is of one patient, one phase, one unit, and its slices lie where its affine says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from redraft.dicom.series import ReadRules, SeriesVolume, open_series
from redraft.errors import ExamError

RULES = ReadRules()


def refused(paths: list[Path], rules: ReadRules = RULES) -> ExamError:
    with pytest.raises(ExamError) as caught:
        open_series(paths, rules)
    return caught.value


def put(**values: object) -> Callable[[Dataset, int], None]:
    def change(dataset: Dataset, _: int) -> None:
        for name, value in values.items():
            setattr(dataset, name, value)

    return change


@pytest.mark.parametrize(
    ("values", "rule"),
    [
        ({"PatientID": "SOMEBODY-ELSE"}, "mixed_patients"),
        ({"PatientID": ""}, "mixed_patients"),
        ({"StudyInstanceUID": "2.25.77"}, "mixed_studies"),
    ],
)
def test_a_series_of_two_patients_is_nobody_s_exam(series: Callable, values: dict[str, str], rule: str) -> None:
    """One slice of somebody else under the same series UID; the refusal does not say whose."""
    files = series()
    own = str(pydicom.dcmread(files.paths[0]).PatientID)
    files.edit(put(**values), 2)
    error = refused(files.paths)
    assert error.rule == rule
    assert own not in f"{error} {error.measured}" and "SOMEBODY" not in f"{error} {error.measured}"


def test_two_issuers_of_one_number_are_two_patients(series: Callable) -> None:
    """Numbers of patients are only unique for who gave them (PS3.3 C.7.1.1); an issuer that is missing is none."""
    files = series()
    files.edit(put(IssuerOfPatientID="NORTH"))
    files.edit(put(IssuerOfPatientID="SOUTH"), 1)
    assert refused(files.paths).rule == "mixed_patients"
    files.edit(put(IssuerOfPatientID=""), 1)
    open_series(files.paths, RULES)


@pytest.mark.parametrize(
    "values", [{"RescaleType": ["HU", "US"]}, {"Units": ["BQML", "CNTS"]}, {"DecayCorrection": ["START", "NONE"]}]
)
def test_values_of_one_volume_mean_one_thing(series: Callable, values: dict[str, list[str]]) -> None:
    """Counts between activities, corrected between uncorrected slices: numbers that cannot stand in one array."""
    ((name, (usual, other)),) = values.items()
    files = series()
    files.edit(put(**{name: usual}))
    open_series(files.paths, RULES)
    files.edit(put(**{name: other}), 3)
    error = refused(files.paths)
    assert (error.rule, error.measured) == ("mixed_units", {"by": name})


@pytest.mark.parametrize("rules", [RULES, ReadRules(uneven_spacing="resample")])
def test_small_steps_that_add_up(series: Callable, rules: ReadRules) -> None:
    """Steps of 1.004 mm, then of 0.996 mm: each within 1 %, but the middle lies 0.8 mm off an even grid."""
    half = 201
    files = series((3, 2, 2 * half + 1))
    steps = np.concatenate([[0], np.cumsum([1.004] * half + [0.996] * half)])
    files.place((1, 0, 0), (0, 1, 0), (1, 1), steps)
    if rules is RULES:
        error = refused(files.paths)
        assert error.rule == "uneven_spacing"
        assert error.measured["drift_mm"] == pytest.approx(0.804, abs=1e-3)
        return
    # A field that grows along z comes out where it is, on whatever grid was chosen.
    for k, path in enumerate(files.paths):
        dataset = pydicom.dcmread(path)
        dataset.PixelData = np.full((2, 3), round(5 * steps[k]) + 1024, "<u2").tobytes()
        dataset.save_as(path)
    (found,) = open_series(files.paths, rules).volumes()
    assert isinstance(found, SeriesVolume) and found.resampled
    z = found.volume.affine[2, 3] + found.volume.affine[2, 2] * np.arange(found.volume.shape[2])
    np.testing.assert_allclose(found.volume.array[0, 0], 5 * z, atol=0.6)


def test_jitter_that_adds_up_to_nothing_is_no_drift(series: Callable) -> None:
    """Positions rounded to hundredths of a millimetre."""
    files = series((3, 2, 60))
    files.place((1, 0, 0), (0, 1, 0), (1, 1), np.round(np.arange(60) * 2.5013, 2))
    files.volume()


# -- phases ------------------------------------------------------------------------------------------------------------


def phases(files: list[list[Path]], change: Callable[[Dataset, int, int], None]) -> list[Path]:
    """The same places once per list, as one series; values tell which list a slice is of."""
    first = pydicom.dcmread(files[0][0])
    for n, paths in enumerate(files):
        for k, path in enumerate(paths):
            dataset = pydicom.dcmread(path)
            for name in ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
                setattr(dataset, name, first.get(name))
            dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"2.25.9{n}{k}"
            dataset.PixelData = np.full((5, 7), 1024 + n, "<u2").tobytes()
            change(dataset, n, k)
            dataset.save_as(path)
    return [path for paths in files for path in paths]


def test_a_slice_of_one_phase_does_not_fill_another_s_place(series: Callable) -> None:
    """Phase 1 twice and phase 2 never at one place; acquisition numbers that make the counts even all the same."""

    def change(dataset: Dataset, n: int, k: int) -> None:
        dataset.AcquisitionNumber = n + 1
        dataset.TemporalPositionIdentifier = 1 if k == 2 else n + 1

    error = refused(phases([series().paths, series().paths], change))
    assert (error.rule, error.measured) == ("several_volumes", {"by": "TemporalPositionIdentifier"})


@pytest.mark.parametrize("name", ["TemporalPositionIdentifier", "EchoNumbers", "DiffusionBValue"])
@pytest.mark.parametrize("rules", [RULES, ReadRules(uneven_spacing="resample")])
def test_phases_at_places_of_their_own_are_not_one_volume(series: Callable, name: str, rules: ReadRules) -> None:
    """The second phase lies half a slice higher: evenly spaced all in all, and alternating."""

    def change(dataset: Dataset, n: int, k: int) -> None:
        setattr(dataset, name, n + 1)
        dataset.ImagePositionPatient = ["0", "0", str(3 * k + 1.5 * n)]

    error = refused(phases([series().paths, series().paths], change), rules)
    assert (error.rule, error.measured) == ("several_volumes", {"by": name})


def test_a_key_that_numbers_slices_is_no_phase(series: Callable) -> None:
    """Some scanners count slices where phases are meant to be counted."""
    files = series()
    files.edit(lambda dataset, k: setattr(dataset, "TemporalPositionIdentifier", k + 1))
    files.volume()


def test_one_image_lies_at_one_place(series: Callable) -> None:
    """Two slices under one instance UID: what refers to it could mean either."""
    files = series()
    uid = pydicom.dcmread(files.paths[0]).SOPInstanceUID
    files.edit(put(SOPInstanceUID=uid), 3)
    assert refused(files.paths).rule == "conflicting_duplicates"
