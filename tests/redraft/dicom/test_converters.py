"""Volumes equal those of converters that share no code with ours, voxel for voxel and affine for affine."""

from __future__ import annotations

import shutil
import subprocess
from collections import defaultdict
from pathlib import Path

import highdicom
import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from redraft.dicom.geometry import LPS_TO_RAS
from redraft.dicom.scan import Header, files_below, read_header
from redraft.dicom.series import ReadRules, SeriesVolume, open_series
from redraft.errors import ExamError
from redraft.volumes import Volume

RULES = ReadRules(accept_secondary=True)
PLACES = ("sts_dicom_rtstruct", "brain_mr_dicom", "totalsegmentator_ref/example_ct_dicom", "dicom_seg_rt")
IMAGES = {"CT", "MR", "PT"}


def grouped(root: Path) -> dict[str, list[Path]]:
    """Image files of a folder by series."""
    found: dict[str, list[Path]] = defaultdict(list)
    for path in files_below([root]):
        header = read_header(path)
        if isinstance(header, Header) and header.text("Modality") in IMAGES:
            found[header.text("SeriesInstanceUID")].append(path)
    return found


def read(paths: list[Path], rules: ReadRules = RULES) -> SeriesVolume:
    (volume,) = open_series(paths, rules).volumes()
    if isinstance(volume, ExamError):
        raise volume
    return volume


def canonical(array: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """On axes nearest to RAS, so that only the places of the values count, not the order they are stored in."""
    image = nib.as_closest_canonical(nib.Nifti1Image(array, affine))
    return np.asarray(image.dataobj), image.affine


def assert_equal(volume: Volume, array: np.ndarray, affine: np.ndarray, rtol: float = 0) -> None:
    ours, our_affine = canonical(volume.array, volume.affine)
    theirs, their_affine = canonical(array, affine)
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(our_affine, their_affine, atol=2e-4)
    np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=0)


def by_itk(paths: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    reader = sitk.ImageSeriesReader()
    folder = str(paths[0].parent)
    header = read_header(paths[0])
    assert isinstance(header, Header)
    if len(paths) == 1:
        return _of_itk(sitk.ReadImage(str(paths[0]), sitk.sitkFloat64))
    names = reader.GetGDCMSeriesFileNames(folder, header.text("SeriesInstanceUID"))
    assert len(names) == len(paths)
    reader.SetFileNames(names)
    reader.SetOutputPixelType(sitk.sitkFloat64)
    return _of_itk(reader.Execute())


def _of_itk(image: sitk.Image) -> tuple[np.ndarray, np.ndarray]:
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image).transpose(2, 1, 0), LPS_TO_RAS @ affine


def by_highdicom(paths: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    if len(paths) == 1:
        volume = highdicom.imread(paths[0]).get_volume(dtype=np.float64)
    else:
        volume = highdicom.get_volume_from_series([pydicom.dcmread(path) for path in paths], dtype=np.float64)
    axes = np.eye(4)[[2, 1, 0, 3]]  # slices, rows, columns
    return volume.array.transpose(2, 1, 0), LPS_TO_RAS @ volume.affine @ axes


def by_dcm2niix(paths: list[Path], folder: Path) -> tuple[np.ndarray, np.ndarray]:
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "in").mkdir(parents=True)
    for n, path in enumerate(paths):
        (folder / "in" / f"{n:04d}.dcm").symlink_to(path)
    subprocess.run(
        ["dcm2niix", "-z", "n", "-b", "n", "-f", "out", "-o", str(folder), str(folder / "in")],
        check=True, capture_output=True,
    )  # fmt: skip
    (found,) = folder.glob("*.nii")
    image = nib.load(found)
    return image.get_fdata(), image.affine  # type: ignore[attr-defined]


def regular(root: Path) -> dict[str, list[Path]]:
    """Series that ours reads; each one that it does not must be one of the known odd ones."""
    found = {}
    for uid, paths in grouped(root).items():
        try:
            open_series(paths, RULES)
        except ExamError as error:
            assert error.rule in {"missing_slices", "single_slice", "missing_position"}, error.rule
        else:
            found[uid] = paths
    return found


@pytest.mark.parametrize(("place", "count"), zip(PLACES, (34, 4, 0, 4), strict=True))
def test_equal_to_simpleitk(shared_data: Path, place: str, count: int) -> None:
    """Every regular CT, MR and PET series of the real images: values and affine."""
    found = regular(shared_data / place)
    assert len(found) == count
    for paths in found.values():
        assert_equal(read(paths).volume, *by_itk(paths), rtol=1e-6)


@pytest.mark.parametrize("place", PLACES)
def test_equal_to_highdicom(shared_data: Path, place: str) -> None:
    """The same by highdicom, which refuses what is not regular."""
    for paths in regular(shared_data / place).values():
        assert_equal(read(paths).volume, *by_highdicom(paths), rtol=1e-6)


@pytest.mark.skipif(shutil.which("dcm2niix") is None, reason="Debian's dcm2niix is not installed")
@pytest.mark.parametrize("place", PLACES)
def test_equal_to_dcm2niix(shared_data: Path, tmp_path: Path, place: str) -> None:
    """The same by dcm2niix."""
    for paths in regular(shared_data / place).values():
        assert_equal(read(paths).volume, *by_dcm2niix(paths, tmp_path / "out"), rtol=2e-6)


def test_jpeg_2000_series_without_uids(shared_data: Path, tmp_path: Path) -> None:
    """Its UIDs were emptied: refused as it is (no rule could tell two patients apart), and equal once it has them."""
    originals = sorted((shared_data / PLACES[2]).glob("*"))
    paths = []
    for n, original in enumerate(path for path in originals if path.is_file()):
        header = read_header(original)
        assert not isinstance(header, Header) and header.rule == "missing_series_uid"
        dataset = pydicom.dcmread(original)
        dataset.SOPInstanceUID, dataset.SeriesInstanceUID = f"2.25.7{n:03d}", "2.25.77"
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID
        dataset.StudyInstanceUID, dataset.file_meta.MediaStorageSOPInstanceUID = "2.25.78", dataset.SOPInstanceUID
        paths.append(tmp_path / f"{n:03d}.dcm")
        dataset.save_as(paths[-1])
    volume = read(paths).volume
    assert volume.shape == (512, 512, 20) and volume.spacing[2] == pytest.approx(2)
    assert_equal(volume, *by_itk(paths))
    assert_equal(volume, *by_highdicom(paths))
