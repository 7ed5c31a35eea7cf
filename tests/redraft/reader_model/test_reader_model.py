"""The simulated reader: plausible minutes, verdicts that follow from the draft, borders as sloppy as asked for."""

from __future__ import annotations

import numpy as np
import pytest

from redraft.config.schema import Reader, Structure
from redraft.errors import LabelError
from redraft.metrics import contour_length_mm, dice, exam_metrics
from redraft.reader_model import EffortParameters, VolumeParameters, simulate_reader
from redraft.reader_model.border import correct, perturb, signed_distance
from redraft.reader_model.effort import minutes_assisted, minutes_from_scratch, noise_factor

SPACING = (1.5, 1.5, 5.0)
STRUCTURES = (
    Structure(name="kidney", value=1, kind="organ", tolerance_mm=3.0),
    Structure(name="tumor", value=2, kind="tumor", tolerance_mm=3.0),
)
STEADY = Reader(id="steady")
FORMS = (EffortParameters(), VolumeParameters())
both_forms = pytest.mark.parametrize("params", FORMS, ids=["contour", "volume"])


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    """Two kidneys of 320 ml together on a 32-slice CT, one with a tumour of 24 mm."""
    labels = np.zeros((220, 160, 32), np.uint8)
    x, y, z = np.indices(labels.shape) * np.array(SPACING)[:, None, None, None]
    for centre in (90, 240):
        labels[((x - centre) / 28) ** 2 + ((y - 120) / 25) ** 2 + ((z - 80) / 55) ** 2 < 1] = 1
    labels[(x - 110) ** 2 + (y - 125) ** 2 + (z - 80) ** 2 < 12**2] = 2
    return labels


def work(truth: np.ndarray, draft: np.ndarray | None, params=FORMS[0], reader=STEADY, seed: int = 1):  # type: ignore[no-untyped-def]
    return simulate_reader(truth, draft, SPACING, STRUCTURES, reader, params, np.random.default_rng(seed))


def test_from_scratch_time_is_in_the_published_range(truth: np.ndarray) -> None:
    """Two kidneys on a 32-slice CT take 10 to 30 minutes in both forms, and the forms agree within a third."""
    kidneys = (truth > 0).astype(np.uint8)
    one = sum(minutes_from_scratch(kidneys, SPACING, STRUCTURES[:1], FORMS[0]).values())
    two = FORMS[1].scratch(kidneys, SPACING, STRUCTURES[:1]).total
    assert 10 < one < 30 and 10 < two < 30
    assert one / two == pytest.approx(1, abs=1 / 3)


def test_from_scratch_time_is_its_formula(truth: np.ndarray) -> None:
    """Overhead and viewing in equal shares, drawing by contour length."""
    p = EffortParameters()
    shared = (p.overhead_seconds + p.viewing_seconds_per_slice * 32) / 60 / 2
    minutes = minutes_from_scratch(truth, SPACING, STRUCTURES, p)
    for structure in STRUCTURES:
        own = p.drawing_seconds_per_mm * contour_length_mm(truth == structure.value, SPACING) / 60
        assert minutes[structure.name] == pytest.approx(shared + own)


def test_correction_time_is_its_formula(truth: np.ndarray) -> None:
    """Overhead, review, and path, erased contour and stray pieces at their prices."""
    p = EffortParameters()
    draft = np.roll(truth, 3, axis=0)
    draft[2:6, 2:6, 3] = 1
    minutes = minutes_assisted(draft, truth, SPACING, STRUCTURES, p)
    metrics = exam_metrics(truth, draft, SPACING, STRUCTURES)
    shared = (p.overhead_seconds + p.review_seconds_per_slice * 32) / 60 / 2
    m = metrics["kidney"]
    own = (
        p.correction_seconds_per_mm * m.apl_mm
        + p.erasing_seconds_per_mm * m.false_positive_mm
        + p.stray_seconds * m.stray_components
    )
    assert m.stray_components == 1
    assert minutes["kidney"] == pytest.approx(shared + own / 60)


@both_forms
def test_perfect_draft_is_accepted_untouched(truth: np.ndarray, params) -> None:  # type: ignore[no-untyped-def]
    """A perfect draft is returned as it is and costs a small part of drawing."""
    back = work(truth, truth, params)
    assert (back.verdict, back.voxels_changed, back.reason_code) == ("accept", 0, None)
    assert (back.labels == truth).all()
    assert back.minutes < 0.3 * work(truth, None, params).minutes


def test_accepted_draft_is_the_draft_not_the_truth(truth: np.ndarray) -> None:
    """Within the tolerance the reader leaves the draft alone: what comes back is the draft."""
    draft = np.roll(truth, 1, axis=0)
    back = work(truth, draft)
    assert back.verdict == "accept" and (back.labels == draft).all() and (back.labels != truth).any()


@both_forms
@pytest.mark.parametrize(("shift", "reason"), [(None, "draft_empty"), (60, "draft_unusable")])
def test_useless_draft_is_rejected_and_drawn(truth: np.ndarray, params, shift, reason) -> None:  # type: ignore[no-untyped-def]
    """An empty or misplaced draft costs looking at it and drawing everything; the truth comes back."""
    draft = np.zeros_like(truth) if shift is None else np.roll(truth, shift, axis=1)
    back, scratch = work(truth, draft, params), work(truth, None, params)
    assert (back.verdict, back.reason_code) == ("reject", reason)
    assert (back.labels == truth).all()
    assert scratch.minutes < back.minutes < 1.3 * scratch.minutes


@both_forms
def test_missing_tumor_is_drawn_at_the_price_of_drawing(truth: np.ndarray, params) -> None:  # type: ignore[no-untyped-def]
    """A perfect kidney with a missed tumour: kidney nearly free, tumour as dear as from scratch, truth comes back."""
    back = work(truth, np.where(truth == 2, 0, truth), params)
    scratch = work(truth, None, params)
    assert back.verdict == "correct"
    assert (back.labels == truth).all()
    assert back.minutes_per_structure["tumor"] >= scratch.minutes_per_structure["tumor"]
    assert back.minutes_per_structure["kidney"] < 0.3 * scratch.minutes_per_structure["kidney"]
    halved = work(truth, np.where(truth == 2, 0, truth), params.scaled(0.5))
    own = params.scratch(truth, SPACING, STRUCTURES).work["tumor"]
    assert halved.minutes_per_structure["tumor"] > own * 0.7  # correcting may get cheap, drawing does not


def test_distant_blob_is_removed_and_paid_for(truth: np.ndarray) -> None:
    """A blob far away is erased; the rest of the draft stays."""
    draft = truth.copy()
    draft[5:15, 5:15, 4] = 1
    back = work(truth, draft)
    assert back.verdict == "correct" and (back.labels == truth).all() and back.voxels_changed == 100
    assert back.minutes > work(truth, truth).minutes


def test_worse_drafts_take_longer_until_they_are_redrawn(truth: np.ndarray) -> None:
    """Minutes rise with the displacement of the draft and never pass review plus drawing."""
    times = [work(truth, np.roll(truth, shift, axis=0)).minutes for shift in (0, 3, 5, 9, 40)]
    assert times == sorted(times) and times[0] < times[-1]


def test_correction_leaves_what_is_close_enough(truth: np.ndarray) -> None:
    """Only the surroundings of real errors change; a rim within the tolerance stays as drafted."""
    draft = np.roll(truth, 1, axis=0)
    leak = (slice(40, 80), slice(97, 110), slice(14, 17))
    draft[leak] = 1
    labels = correct(draft, truth, SPACING, STRUCTURES)
    assert (labels[40:80, 100:110, 14:17] == truth[40:80, 100:110, 14:17]).all()
    assert (labels[120:] == draft[120:]).all() and (labels[120:] != truth[120:]).any()


@pytest.mark.parametrize("sloppiness", [1.0, 2.0])
def test_sloppy_borders_are_as_sloppy_as_asked(truth: np.ndarray, sloppiness: float) -> None:
    """The displaced border's distance to the true border has about the standard deviation that was asked for."""
    fine = (1.0, 1.0, 1.0)
    x, y, z = np.indices((90, 90, 90)) - 45
    ball = (x**2 + y**2 + z**2 < 30**2).astype(np.uint8)
    distance = signed_distance(ball == 1, fine)
    spread = []
    for seed in range(4):
        moved = perturb(ball, fine, STRUCTURES, sloppiness, np.random.default_rng(seed)) == 1
        inner = moved & (signed_distance(moved, fine) > -0.6)
        spread.append(np.square(distance[inner] + 0.5).mean())
    assert np.sqrt(np.mean(spread)) == pytest.approx(sloppiness, rel=0.35)


def test_sloppy_label_keeps_its_structures_without_gaps(truth: np.ndarray) -> None:
    """All structures survive, values stay known, and no hole opens between kidney and tumour."""
    tiny = np.zeros_like(truth)
    tiny[50, 50, 10] = 2
    assert (perturb(tiny, SPACING, STRUCTURES, 3.0, np.random.default_rng(0)) == 2).any()
    moved = perturb(truth, SPACING, STRUCTURES, 2.0, np.random.default_rng(0))
    assert set(np.unique(moved)) == {0, 1, 2}
    deep = signed_distance(truth > 0, SPACING) < -10
    assert (moved[deep] > 0).all()
    assert 0.8 < dice(moved == 1, truth == 1) < 1


def test_steady_hand_returns_the_truth(truth: np.ndarray) -> None:
    """Without sloppiness nothing moves."""
    assert (work(truth, None).labels == truth).all()


def test_faster_reader_takes_proportionally_less(truth: np.ndarray) -> None:
    """Time is divided by speed; the same noise is drawn."""
    slow, fast = (work(truth, None, reader=Reader(id="r", speed=s)).minutes for s in (1.0, 2.0))
    assert slow == pytest.approx(2 * fast)


def test_same_random_state_gives_the_same_return(truth: np.ndarray) -> None:
    """Everything random comes from the generator that is passed."""
    sloppy = Reader(id="r", sloppiness_mm=1.5)
    one, two, other = (work(truth, np.roll(truth, 4, 0), reader=sloppy, seed=s) for s in (3, 3, 4))
    assert (one.labels == two.labels).all() and one.minutes_per_structure == two.minutes_per_structure
    assert (one.labels != other.labels).any() and one.minutes != other.minutes


def test_noise_keeps_the_mean() -> None:
    """The log-normal factor has mean 1, so noise does not change a total."""
    rng = np.random.default_rng(0)
    assert np.mean([noise_factor(0.25, rng) for _ in range(20_000)]) == pytest.approx(1, abs=0.01)


@both_forms
def test_scaling_changes_the_assisted_side_only(truth: np.ndarray, params) -> None:  # type: ignore[no-untyped-def]
    """Sensitivity ½ and 2 moves what working on a draft costs and leaves the baseline alone."""
    draft = np.roll(truth, 3, axis=0)
    times = [work(truth, draft, params.scaled(f)).minutes for f in (0.5, 1.0, 2.0)]
    assert times[0] < times[1] < times[2]
    assert work(truth, None, params.scaled(2.0)).minutes == work(truth, None, params).minutes


@both_forms
def test_every_parameter_states_its_source(params) -> None:  # type: ignore[no-untyped-def]
    """No constant without a source."""
    assert all(entry["source"] for entry in params.sources().values())


@both_forms
def test_exam_without_any_structure_costs_looking_only(truth: np.ndarray, params) -> None:  # type: ignore[no-untyped-def]
    """Nothing to draw: overhead and viewing; an empty draft of it is accepted."""
    empty = np.zeros_like(truth)
    assert work(empty, None, params).minutes < 5
    assert work(empty, empty, params).verdict == "accept"
    assert work(empty, truth, params).verdict in ("correct", "reject")
    assert not work(empty, truth, params).labels.any()


def test_draft_on_another_grid_is_refused(truth: np.ndarray) -> None:
    """A draft of another shape is an error."""
    with pytest.raises(LabelError):
        work(truth, truth[:-1])
