"""The synthetic body: what is in it, what stays between exams, what makes it easy or hard."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from redraft.errors import UsageError
from redraft.phantom.anatomy import KIDNEY, TUMOR, Anatomy, draw_anatomy
from redraft.phantom.write import SHAPE, SPACING, draw_exam, has_tumor, subject_of

VOXEL_ML = float(np.prod(SPACING)) / 1000
EXAMS = 24


@pytest.fixture(scope="module")
def exams() -> list[Anatomy]:
    return [draw_exam(11, number) for number in range(EXAMS)]


def rng(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def test_two_kidneys_of_human_size_in_every_exam(exams):
    """Left and right of the spine lies one kidney each, 70 to 280 ml with its tumour, and nothing else is labelled."""
    for exam in exams:
        assert set(np.unique(exam.labels)) <= {0, KIDNEY, TUMOR}
        for half in (exam.labels[: SHAPE[0] // 2], exam.labels[SHAPE[0] // 2 :]):
            pieces, count = ndimage.label(half == KIDNEY)
            sizes = ndimage.sum_labels(half == KIDNEY, pieces, range(1, count + 1)) * VOXEL_ML
            # A tumour in the middle may part a kidney; a cyst may hang off it.
            assert 70 < (half > 0).sum() * VOXEL_ML < 280
            assert max(sizes) > 0.5 * sum(sizes)


def test_kidneys_vary(exams):
    """Size, position and shape differ between subjects: no two kidneys coincide."""
    volumes, overlaps = [], []
    for a, b in zip(exams[::2], exams[1::2], strict=True):
        volumes += [(a.labels > 0).sum() * VOXEL_ML, (b.labels > 0).sum() * VOXEL_ML]
        overlaps.append(2 * ((a.labels > 0) & (b.labels > 0)).sum() / ((a.labels > 0).sum() + (b.labels > 0).sum()))
    assert np.std(volumes) > 15
    assert np.median(overlaps) < 0.8


def test_half_of_the_exams_have_a_tumour_of_one_piece(exams):
    """Tumours are in about half of the exams, connected, from a few millilitres to many."""
    volumes = []
    for number, exam in enumerate(exams):
        tumor = exam.labels == TUMOR
        assert tumor.any() == has_tumor(11, subject_of(number))
        if tumor.any():
            assert ndimage.label(tumor)[1] == 1
            volumes.append(tumor.sum() * VOXEL_ML)
    assert 9 <= len(volumes) <= 15
    assert min(volumes) < 20 and max(volumes) > 50


@pytest.mark.parametrize("seed", range(12))
def test_every_short_series_is_balanced(seed):
    """Whatever the seed, tumours are neither absent nor everywhere among the first exams."""
    for count in (4, 6, 10, 12, 28):
        ill = sum(has_tumor(seed, subject_of(number)) for number in range(count))
        assert abs(ill - count / 2) <= 1.5, (count, ill)


def test_a_second_exam_shows_the_same_body(exams):
    """Two exams of one subject show the same kidneys, moved by millimetres; strangers' kidneys differ more."""

    def best(a: Anatomy, b: Anatomy) -> float:
        fixed, moving = a.labels > 0, b.labels > 0
        start = np.rint(np.subtract(ndimage.center_of_mass(fixed), ndimage.center_of_mass(moving))).astype(int)
        shifted = np.roll(moving, tuple(start), (0, 1, 2))
        return float(2 * (fixed & shifted).sum() / (fixed.sum() + shifted.sum()))

    same = [best(exams[n - 1], exams[n]) for n in range(EXAMS) if subject_of(n) != n]
    strangers = [best(exams[n], exams[n + 6]) for n in range(EXAMS - 6)]
    assert len(same) == 4
    assert min(same) > max(strangers)
    assert not np.array_equal(exams[4].hu, exams[5].hu)


def test_tumours_grow_between_exams():
    """Later exams of a subject hold the same tumour, grown; the other kidney is as it was."""
    first, later = (
        draw_anatomy(rng(5), rng(6), (160, 120, 64), (2.2, 2.2, 3.0), tumor=True, visit=visit) for visit in (0, 1)
    )
    factor = (later.labels == TUMOR).sum() / (first.labels == TUMOR).sum()
    assert 1.25 < factor < 1.85  # 1.15³ = 1.52, and the border is rough
    grown = later.labels != first.labels
    assert set(np.unique(later.labels[grown])) <= {0, TUMOR}


def test_a_tumour_changes_nothing_else():
    """With and without tumour the same body is drawn: the voxels that differ are the tumour's and its blurred rim."""
    ill, well = (draw_anatomy(rng(5), rng(6), SHAPE, SPACING, tumor=tumor) for tumor in (True, False))
    mass = ill.labels == TUMOR
    assert mass.any() and not (well.labels == TUMOR).any()
    assert np.array_equal(ill.labels[~mass], well.labels[~mass])
    far = ~ndimage.binary_dilation(mass, iterations=4)
    assert np.array_equal(ill.hu[far], well.hu[far])


def test_the_same_anatomy_at_any_voxel_size():
    """Finer voxels show the same kidneys and tumour: volumes agree within voxel error."""
    coarse = draw_anatomy(rng(1), rng(2), SHAPE, SPACING, tumor=True)
    fine = draw_anatomy(rng(1), rng(2), (192, 160, 64), (1.8, 1.8, 3.0), tumor=True)
    for value in (KIDNEY, TUMOR):
        a, b = (coarse.labels == value).sum() * VOXEL_ML, (fine.labels == value).sum() * VOXEL_ML / 8
        assert a == pytest.approx(b, rel=0.05)


def test_kidney_is_easy_and_tumour_hard_by_the_image(exams):
    """A kidney stands out from its surroundings by many noise deviations, a tumour from its kidney by a few at most."""
    for exam in exams:
        kidney, tumor = exam.labels == KIDNEY, exam.labels == TUMOR
        core = ndimage.binary_erosion(kidney)
        around = ndimage.binary_dilation(exam.labels > 0, iterations=3) & (exam.labels == 0)
        assert np.median(exam.hu[core]) - np.median(exam.hu[around]) > 5 * exam.noise_hu
        if tumor.any():
            contrast = np.median(exam.hu[core]) - np.median(exam.hu[tumor])
            assert contrast < 7 * exam.noise_hu


def test_hounsfield_units_are_plausible(exams):
    """Air, fat, liver, kidney and bone are where radiology expects them."""
    for exam in exams:
        assert exam.hu.dtype == np.int16 and exam.hu.min() >= -1024 and exam.hu.max() <= 3071
        assert np.median(exam.hu[:4, :4]) == pytest.approx(-1000, abs=15)
        assert 130 < np.median(exam.hu[exam.labels == KIDNEY]) < 200
        assert (exam.hu > 250).mean() > 0.002  # bone
        assert 0.1 < ((exam.hu > -140) & (exam.hu < -60)).mean() < 0.5  # fat


def test_noise_has_its_own_level_and_is_correlated(exams):
    """Noise in air has the level that the exam states, and neighbours in the plane share it."""
    levels = []
    for exam in exams:
        air = exam.hu[:10, :10].astype(float)
        # Clipping at -1024 is 24 HU below air: a part of the noise is cut off there.
        quarter = np.percentile(air, 75) - np.median(air)
        assert quarter / 0.6745 == pytest.approx(exam.noise_hu, rel=0.15)
        levels.append(exam.noise_hu)
        upper = np.maximum(air, -1000)
        assert np.corrcoef(upper[:-1].ravel(), upper[1:].ravel())[0, 1] > 0.3
        assert abs(np.corrcoef(upper[..., :-1].ravel(), upper[..., 1:].ravel())[0, 1]) < 0.15
    assert np.ptp(levels) > 5


def test_a_small_field_of_view_is_refused():
    """A field of view that would cut a kidney off is an error, not a phantom without kidneys."""
    with pytest.raises(UsageError, match="does not hold both kidneys"):
        draw_anatomy(rng(0), rng(1), (64, 64, 16), (3.6, 3.6, 5.0), tumor=False)


def test_kidneys_never_touch_the_edge(exams):
    """At the smallest field of view that is allowed no kidney is cut off."""
    for number in range(20):
        exam = draw_anatomy(rng(number), rng(100 + number), (85, 63, 34), (4.0, 4.0, 5.0), tumor=True)
        edges = (exam.labels[0], exam.labels[-1], exam.labels[:, 0], exam.labels[:, -1], exam.labels[..., 0],
                 exam.labels[..., -1])  # fmt: skip
        assert not any(edge.any() for edge in edges)
