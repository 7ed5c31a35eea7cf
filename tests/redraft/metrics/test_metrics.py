"""Metrics against independent oracles, closed forms and the algebra they must obey."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from redraft.config.schema import Structure
from redraft.errors import LabelError
from redraft.metrics import (
    added_path_length_mm,
    contour_length_mm,
    dice,
    exam_metrics,
    false_positive_contour_mm,
    hd95_mm,
    stray_components,
    surface_dice,
)

SPACING = (0.7, 1.1, 3.0)
masks = hnp.arrays(bool, (7, 6, 4))
spacings = st.tuples(*[st.floats(0.3, 4.0)] * 3)
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def blobs(seed: int, shape: tuple[int, int, int] = (24, 20, 10)) -> np.ndarray:
    from scipy import ndimage

    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), (3, 3, 1.5))
    return noise > np.quantile(noise, 0.8)


def cube(start: int = 5, size: int = 10) -> np.ndarray:
    mask = np.zeros((24, 24, 9), dtype=bool)
    mask[start : start + size, 5:15, 2:7] = True
    return mask


@pytest.mark.parametrize("seed", range(6))
def test_surface_metrics_agree_with_monai(seed: int) -> None:
    """Surface Dice and HD95 equal MONAI's on random shapes with anisotropic spacing."""
    import torch
    from monai.metrics import compute_hausdorff_distance, compute_surface_dice

    a, b = blobs(seed), blobs(seed + 100)
    one, two = (torch.from_numpy(np.stack([~m, m])[None].astype(np.float32)) for m in (a, b))
    for tolerance in (0.5, 2.0, 4.0):
        theirs = compute_surface_dice(one, two, [tolerance], spacing=SPACING).item()
        assert surface_dice(a, b, SPACING, tolerance) == pytest.approx(theirs, abs=1e-6)
    theirs = compute_hausdorff_distance(one, two, percentile=95, spacing=SPACING).item()
    assert hd95_mm(a, b, SPACING) == pytest.approx(theirs, abs=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_dice_agrees_with_simpleitk(seed: int) -> None:
    """Dice equals SimpleITK's overlap measure."""
    import SimpleITK as sitk

    a, b = blobs(seed), blobs(seed + 50)
    measure = sitk.LabelOverlapMeasuresImageFilter()
    measure.Execute(sitk.GetImageFromArray(a.astype(np.uint8)), sitk.GetImageFromArray(b.astype(np.uint8)))
    assert dice(a, b) == pytest.approx(measure.GetDiceCoefficient())


@pytest.mark.parametrize("seed", range(4))
def test_hd95_never_exceeds_simpleitk_hausdorff(seed: int) -> None:
    """HD95 is at most the Hausdorff distance that SimpleITK measures on the same border voxels."""
    import SimpleITK as sitk

    from redraft.metrics.surface import border, surface_distances

    a, b = blobs(seed), blobs(seed + 50)
    images = [sitk.GetImageFromArray(border(m).astype(np.uint8)) for m in (a, b)]
    for image in images:
        image.SetSpacing(SPACING[::-1])
    measure = sitk.HausdorffDistanceImageFilter()
    measure.Execute(*images)
    distances = surface_distances(a, b, SPACING)
    largest = max(distances.a_to_b.max(), distances.b_to_a.max())
    assert largest == pytest.approx(measure.GetHausdorffDistance(), abs=1e-5)
    value = hd95_mm(a, b, SPACING)
    assert value is not None and value <= largest + 1e-9


@pytest.mark.parametrize("seed", range(5))
def test_contour_length_agrees_with_scikit_image(seed: int) -> None:
    """Contour length equals the length of scikit-image's marching-squares contours, scaled to mm."""
    from skimage.measure import find_contours

    mask = blobs(seed)
    total = 0.0
    for k in range(mask.shape[2]):
        for line in find_contours(np.pad(mask[:, :, k], 1).astype(float), 0.5):
            total += np.linalg.norm(np.diff(line, axis=0) * SPACING[:2], axis=1).sum()
    assert contour_length_mm(mask, SPACING) == pytest.approx(total)


def test_contour_of_a_box_has_its_closed_form() -> None:
    """A 10 × 10 box over five slices: straight pieces between border pixels, half a pixel diagonal at each corner."""
    expected = 5 * (2 * 9 * (SPACING[0] + SPACING[1]) + 4 * 0.5 * np.hypot(SPACING[0], SPACING[1]))
    assert contour_length_mm(cube(), SPACING) == pytest.approx(expected)


def test_contour_of_a_disc_is_close_to_its_circumference() -> None:
    """A disc's contour is 2 to 8 % too long, as the convention says, not 27 % as pixel edges would be."""
    grid = np.hypot(*np.indices((201, 201)) - 100)[..., None]
    assert 1.02 < contour_length_mm(grid < 80, (1, 1, 1)) / (2 * np.pi * 80) < 1.083


@pytest.mark.parametrize("shift", [1, 2, 4])
def test_shifted_plane_lies_exactly_its_shift_away(shift: int) -> None:
    """A box shifted by d mm has HD95 d, and nothing to redraw at a tolerance of d."""
    a, b = cube(5), cube(5 + shift)
    moved = shift * SPACING[0]
    assert hd95_mm(a, b, (SPACING[0], 1.0, 50.0)) == pytest.approx(moved)
    assert added_path_length_mm(a, b, SPACING, moved) == 0
    assert false_positive_contour_mm(a, b, SPACING, moved) == 0
    assert surface_dice(a, b, SPACING, moved) == 1
    # Below it the reference's far side is missing: ten pixels high in five slices, and part of the rims.
    assert added_path_length_mm(a, b, SPACING, moved * 0.99) >= 5 * 9 * SPACING[1]


def test_missing_slices_count_full_and_extra_slices_add_nothing() -> None:
    """Added path length: a slice without test contour counts whole, a slice without reference adds nothing."""
    reference, test = cube(), cube()
    test[:, :, 4] = False
    per_slice = contour_length_mm(reference, SPACING) / 5
    assert added_path_length_mm(reference, test, SPACING, 3.0) == pytest.approx(per_slice)
    assert added_path_length_mm(test, reference, SPACING, 3.0) == 0
    assert false_positive_contour_mm(test, reference, SPACING, 3.0) == pytest.approx(per_slice)


def test_distant_blob_has_no_added_path_but_is_not_free() -> None:
    """A draft with a blob far away: added path length 0, its contour as false positive, one stray component."""
    reference = cube()
    test = reference.copy()
    test[20:23, 20:23, 0] = True
    alone = test & ~reference
    assert added_path_length_mm(reference, test, SPACING, 1.0) == 0
    assert false_positive_contour_mm(reference, test, SPACING, 1.0) == pytest.approx(contour_length_mm(alone, SPACING))
    assert stray_components(reference, test) == 1


def test_draft_inside_the_reference_has_nothing_to_erase() -> None:
    """Under-segmentation costs added path only."""
    reference, test = cube(), np.zeros_like(cube())
    test[9:11, 9:11, 3:6] = True
    assert false_positive_contour_mm(reference, test, SPACING, 0.0) == 0
    assert added_path_length_mm(reference, test, SPACING, 1.0) == pytest.approx(contour_length_mm(reference, SPACING))


def test_corner_touching_components_are_one() -> None:
    """Stray components use the 26-neighbourhood."""
    test = np.zeros((5, 5, 5), dtype=bool)
    test[1, 1, 1] = test[2, 2, 2] = test[4, 4, 4] = True
    assert stray_components(np.zeros_like(test), test) == 2


def test_empty_masks_follow_the_written_conventions() -> None:
    """Both empty: 1, 1, 0, 0. One empty: 0, 0, None and whole contours."""
    empty, full = np.zeros_like(cube()), cube()
    assert (dice(empty, empty), surface_dice(empty, empty, SPACING, 1), hd95_mm(empty, empty, SPACING)) == (1, 1, 0)
    assert added_path_length_mm(empty, empty, SPACING, 1) == 0
    for a, b in ((empty, full), (full, empty)):
        assert (dice(a, b), surface_dice(a, b, SPACING, 1), hd95_mm(a, b, SPACING)) == (0, 0, None)
    whole = contour_length_mm(full, SPACING)
    assert added_path_length_mm(full, empty, SPACING, 1) == pytest.approx(whole)
    assert false_positive_contour_mm(empty, full, SPACING, 1) == pytest.approx(whole)


def test_mask_at_the_image_border_is_closed() -> None:
    """A mask that fills the image has a border and a contour there."""
    full = np.ones((4, 5, 3), dtype=bool)
    assert contour_length_mm(full, (1, 1, 1)) == pytest.approx(3 * (2 * 3 + 2 * 4 + 2 * np.sqrt(2)))
    assert hd95_mm(full, full, (1, 1, 1)) == 0


@quick
@given(masks, masks, spacings, st.floats(0, 5))
def test_overlap_and_surface_are_symmetric_and_bounded(a, b, spacing, tolerance) -> None:  # type: ignore[no-untyped-def]
    """Dice, surface Dice and HD95 do not care which mask is the reference, and stay in their ranges."""
    assert dice(a, b) == dice(b, a) and 0 <= dice(a, b) <= 1
    assert (dice(a, b) == 1) == bool((a == b).all())
    forth, back = surface_dice(a, b, spacing, tolerance), surface_dice(b, a, spacing, tolerance)
    assert forth == back and 0 <= forth <= 1
    assert hd95_mm(a, b, spacing) == hd95_mm(b, a, spacing)


@quick
@given(masks, masks, spacings, st.floats(0, 4), st.floats(0, 4))
def test_path_lengths_shrink_with_tolerance_and_vanish_on_equality(a, b, spacing, t1, t2) -> None:  # type: ignore[no-untyped-def]
    """Added path and false-positive contour: 0 against itself, bounded by the contour, monotone in the tolerance."""
    low, high = sorted((t1, t2))
    assert added_path_length_mm(a, a, spacing, low) == 0
    assert false_positive_contour_mm(a, a, spacing, low) == 0
    wide, tight = (added_path_length_mm(a, b, spacing, t) for t in (high, low))
    assert 0 <= wide <= tight <= contour_length_mm(a, spacing) + 1e-9
    wide, tight = (false_positive_contour_mm(a, b, spacing, t) for t in (high, low))
    assert 0 <= wide <= tight <= contour_length_mm(b, spacing) + 1e-9
    assert surface_dice(a, b, spacing, low) <= surface_dice(a, b, spacing, high)


@quick
@given(masks, masks, spacings, st.integers(0, 2))
def test_flipping_both_masks_changes_nothing(a, b, spacing, axis) -> None:  # type: ignore[no-untyped-def]
    """All metrics are invariant under a flip of any axis and under empty margins."""
    c, d = np.flip(a, axis), np.flip(b, axis)
    e, f = np.pad(a, 2), np.pad(b, 2)
    for metric in (
        lambda x, y: dice(x, y),
        lambda x, y: surface_dice(x, y, spacing, 1.0),
        lambda x, y: hd95_mm(x, y, spacing) or 0.0,
        lambda x, y: added_path_length_mm(x, y, spacing, 1.0),
        lambda x, y: false_positive_contour_mm(x, y, spacing, 1.0),
        lambda x, y: stray_components(x, y),
    ):
        assert metric(c, d) == pytest.approx(metric(a, b))
        assert metric(e, f) == pytest.approx(metric(a, b))


def test_exam_metrics_judges_each_structure_by_its_own_tolerance() -> None:
    """Per structure: its label value, its tolerance, and whether it is absent from both."""
    structures = (
        Structure(name="organ", value=1, kind="organ", tolerance_mm=3.0),
        Structure(name="tight", value=2, kind="organ", tolerance_mm=0.1),
        Structure(name="tumor", value=3, kind="tumor"),
    )
    reference, test = np.zeros((24, 24, 9), np.uint8), np.zeros((24, 24, 9), np.uint8)
    reference[2:8, 2:8, 2:5], test[3:9, 2:8, 2:5] = 1, 1
    reference[12:18, 12:18, 2:5], test[13:19, 12:18, 2:5] = 2, 2
    result = exam_metrics(reference, test, (1, 1, 1), structures)
    assert result["organ"].dice == result["tight"].dice == pytest.approx(5 / 6)
    assert result["organ"].surface_dice == 1 and result["tight"].surface_dice < 1
    assert result["organ"].apl_mm == 0 and result["tight"].apl_mm > 0
    assert result["tumor"].absent and result["tumor"].dice == 1 and not result["organ"].absent
    assert result["organ"].reference_ml == pytest.approx(0.108)


@pytest.mark.parametrize("spacing", [(1, 1), (1, 0, 1), (1, float("nan"), 1), (1, -1, 1)])
def test_bad_spacing_is_refused(spacing: tuple[float, ...]) -> None:
    """A spacing that is not three positive lengths is an error, not a number."""
    with pytest.raises(LabelError, match="Spacing"):
        hd95_mm(cube(), cube(), spacing)


def test_masks_on_other_grids_are_refused() -> None:
    """Two shapes cannot be compared, not even where broadcasting would allow it."""
    with pytest.raises(LabelError):
        dice(np.ones((4, 4, 4), bool), np.ones((4, 4, 1), bool))
    with pytest.raises(LabelError):
        exam_metrics(np.ones((4, 4, 4)), np.ones((4, 4, 1)), (1, 1, 1), ())
