"""Labels → file → labels is voxel-identical on every grid, and every voxel lies in the patient where it lay before."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from redraft.segmentation.exam import ExamGeometry
from redraft.segmentation.nrrd_file import write_nrrd
from redraft.segmentation.origin import dicom_bytes
from redraft.segmentation.read import interpret, read_segmentation
from redraft.segmentation.rtstruct_out import build_rtstruct
from redraft.segmentation.seg_out import build_seg

ORIENTATIONS = list(itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3)))
SHAPE = (7, 6, 5)


def signed_permutation(axes: tuple[int, ...], signs: tuple[int, ...]) -> np.ndarray:
    """A grid whose axes run along those of the patient in any order and sense."""
    lps = np.eye(4)
    lps[:3, :3] = np.eye(3)[:, list(axes)] * signs * (0.9, 1.3, 2.5)
    lps[:3, 3] = (-12.5, 40.25, -300)
    return lps


def oblique(seed: int, mirrored: bool = False) -> np.ndarray:
    """A grid turned and displaced at random; with the third axis against the normal when mirrored."""
    rng = np.random.default_rng(seed)
    lps = np.eye(4)
    lps[:3, :3] = Rotation.random(random_state=seed).as_matrix() * rng.uniform(0.4, 6, 3)
    lps[:3, 2] *= -1 if mirrored else 1
    lps[:3, 3] = rng.uniform(-900, 900, 3)
    return lps


def saved(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def points_of(path: Path, number: int) -> np.ndarray:
    """Centres of a segment's voxels in LPS mm, read by pydicom and the formula of PS3.3 C.7.6.2.1.1 alone."""
    dataset = pydicom.dcmread(path)
    shared = dataset.SharedFunctionalGroupsSequence[0]
    orientation = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
    row_spacing, column_spacing = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    found = []
    for frame, item in zip(bits_of(dataset), dataset.PerFrameFunctionalGroupsSequence, strict=True):
        if item.SegmentIdentificationSequence[0].ReferencedSegmentNumber != number:
            continue
        position = np.array(item.PlanePositionSequence[0].ImagePositionPatient, float)
        rows, columns = np.nonzero(frame)
        way = np.outer(columns * column_spacing, orientation[:3]) + np.outer(rows * row_spacing, orientation[3:])
        found.append(position + way)
    return np.concatenate(found) if found else np.zeros((0, 3))


def bits_of(dataset: pydicom.Dataset) -> np.ndarray:
    """Frames unpacked by the letter of PS3.5 8.1.1; pydicom's own way fails where a frame is less than a byte."""
    shape = (int(dataset.NumberOfFrames), dataset.Rows, dataset.Columns)
    return np.unpackbits(np.frombuffer(dataset.PixelData, np.uint8), bitorder="little")[: np.prod(shape)].reshape(shape)


def same_points(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two sets of points are one, to 0.01 mm."""
    if len(a) != len(b):
        return False
    order = [np.lexsort(np.round(p, 1).T) for p in (a, b)]
    from scipy.spatial import KDTree

    distance, index = KDTree(b[order[1]]).query(a[order[0]]) if len(a) else (np.zeros(0), np.zeros(0))
    return bool((distance < 0.01).all()) and len(set(np.asarray(index).tolist())) == len(a)


def check_seg(exam: ExamGeometry, labels, structures, origin, path: Path) -> None:
    saved(path, dicom_bytes(build_seg(labels, exam, structures, origin)))
    np.testing.assert_array_equal(read_segmentation(path, exam, structures), labels)
    for number, structure in enumerate(structures, 1):
        index = np.argwhere(labels == structure.value)
        expected = (np.c_[index, np.ones(len(index))] @ exam.lps.T)[:, :3]
        assert same_points(points_of(path, number), expected), structure.name


@pytest.mark.parametrize(("axes", "signs"), ORIENTATIONS, ids=str)
def test_seg_of_every_orientation(axes, signs, make_exam: Callable, make_labels, structures, origin, tmp_path) -> None:
    """All 48 axis orders and senses, left-handed ones too: back to the voxel, and at the right place in the patient."""
    exam = make_exam(SHAPE, signed_permutation(axes, signs))
    check_seg(exam, make_labels(SHAPE), structures, origin, tmp_path / "a.dcm")


@given(
    st.integers(0, 10_000), st.booleans(), st.tuples(*[st.integers(2, 8)] * 3), st.booleans(),
)  # fmt: skip
@settings(max_examples=25, deadline=None)
def test_every_format_on_any_oblique_grid(
    tmp_path_factory, make_exam, make_labels, structures, origin, seed, mirrored, shape, nifti
) -> None:
    """SEG, RTSTRUCT and NRRD of grids turned in any way, of DICOM and of NIfTI exams."""
    exam = make_exam(shape, oblique(seed, mirrored), **({"slices": {}} if nifti else {}))
    labels = make_labels(shape, seed)
    folder = tmp_path_factory.mktemp("oblique")
    check_seg(exam, labels, structures, origin, folder / "a.dcm")
    contours = saved(folder / "b.dcm", dicom_bytes(build_rtstruct(labels, exam, structures, origin)))
    np.testing.assert_array_equal(read_segmentation(contours, exam, structures), labels)
    write_nrrd(folder / "c.seg.nrrd", labels, exam, structures)
    np.testing.assert_array_equal(read_segmentation(folder / "c.seg.nrrd", exam, structures), labels)


@pytest.mark.parametrize("seed", range(3))
def test_highdicom_reads_the_same_labels_at_the_same_place(
    seed, make_exam, make_labels, structures, origin, tmp_path
) -> None:
    """Read by highdicom as one volume with an affine of its own: equal labels at equal points."""
    import highdicom

    exam, labels = make_exam(SHAPE, oblique(seed)), make_labels(SHAPE, seed)
    path = saved(tmp_path / "a.dcm", dicom_bytes(build_seg(labels, exam, structures, origin)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        volume = highdicom.seg.segread(path).get_volume(combine_segments=True, allow_missing_positions=True)
    index = np.argwhere(volume.array)
    points = (np.c_[index, np.ones(len(index))] @ volume.affine.T)[:, :3]
    ours = (np.linalg.solve(exam.lps, np.c_[points, np.ones(len(points))].T))[:3].T
    np.testing.assert_allclose(ours, np.rint(ours), atol=1e-3)
    back = np.zeros(SHAPE, np.uint8)
    values = np.array([0, *(s.value for s in structures)])
    back[tuple(np.rint(ours).astype(int).T)] = values[volume.array[tuple(index.T)]]
    np.testing.assert_array_equal(back, labels)


@pytest.mark.parametrize("seed", range(3))
def test_simpleitk_reads_the_same_nrrd(seed, make_exam, make_labels, structures, tmp_path) -> None:
    """The array and, voxel by voxel, its place in LPS."""
    exam, labels = make_exam(SHAPE, oblique(seed)), make_labels(SHAPE, seed)
    write_nrrd(tmp_path / "a.seg.nrrd", labels, exam, structures)
    image = SimpleITK.ReadImage(str(tmp_path / "a.seg.nrrd"))
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(image).transpose(2, 1, 0), labels)
    for index in itertools.product(*[(0, n - 1) for n in SHAPE]):
        expected = (exam.lps @ [*index, 1])[:3]
        np.testing.assert_allclose(image.TransformIndexToPhysicalPoint(index), expected, atol=1e-4)


def test_the_same_labels_give_the_same_bytes(make_exam, make_labels, structures, origin) -> None:
    """Bytes and UIDs depend on labels, exam and origin alone; another annotation gets other UIDs."""
    exam, labels = make_exam(), make_labels()
    for build in (build_seg, build_rtstruct):
        first, again = (build(labels, exam, structures, origin) for _ in range(2))
        assert dicom_bytes(first) == dicom_bytes(again)
        other = build(labels, exam, structures, type(origin)(**{**vars(origin), "sha256": "ef" * 32}))
        assert other.SOPInstanceUID != first.SOPInstanceUID and other.SeriesInstanceUID != first.SeriesInstanceUID


def test_nothing_drawn_is_a_segmentation_too(make_exam, structures, origin, tmp_path) -> None:
    """An exam without any structure comes back empty, not refused."""
    exam = make_exam()
    empty = np.zeros(SHAPE, np.uint8)
    for build in (build_seg, build_rtstruct):
        path = saved(tmp_path / "a.dcm", dicom_bytes(build(empty, exam, structures, origin)))
        found = interpret(path, exam, structures)
        assert not found.labels.any() and not found.ignored


def test_frames_in_any_order_and_of_another_orientation_are_put_in_place(
    make_exam, make_labels, structures, origin, tmp_path
) -> None:
    """A SEG of the same voxels as sagittal, coronal or mirrored frames, frames shuffled: the same labels."""
    lps = oblique(5)
    exam, labels = make_exam(SHAPE, lps), make_labels(SHAPE)
    for axes, signs in ORIENTATIONS[::5]:
        turned, turned_labels = lps.copy(), np.transpose(labels, axes)
        turned[:3, :3] = lps[:3, list(axes)] * signs
        flipped = [n for n in range(3) if signs[n] < 0]
        turned_labels = np.flip(turned_labels, flipped)
        turned[:3, 3] += sum(lps[:3, axes[n]] * (SHAPE[axes[n]] - 1) for n in flipped)
        other = make_exam(turned_labels.shape, turned)
        dataset = build_seg(turned_labels, other, structures, origin)
        path = saved(tmp_path / "a.dcm", dicom_bytes(shuffled(dataset)))
        np.testing.assert_array_equal(read_segmentation(path, exam, structures), labels)


def shuffled(dataset: pydicom.Dataset) -> pydicom.Dataset:
    """The same frames in another order."""
    from pydicom.pixels import pack_bits

    frames = bits_of(dataset)
    order = np.random.default_rng(1).permutation(len(frames))
    dataset.PixelData = pack_bits(frames[order].ravel())
    dataset.PerFrameFunctionalGroupsSequence = [dataset.PerFrameFunctionalGroupsSequence[int(n)] for n in order]
    return dataset
