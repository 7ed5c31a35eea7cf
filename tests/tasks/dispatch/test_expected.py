"""What an exam is expected to take: measured history where there is enough, never pooled over origins."""

from __future__ import annotations

from tasks.dispatch.expected import ENOUGH, Worked, expected_minutes

NAMES = ["kidney", "tumour"]


def worked(n: int, minutes: dict[str | None, float], mode: str = "assisted", origin: str = "measured") -> list[Worked]:
    return [Worked(f"{origin}-{mode}-{k}", name, mode, origin, m) for k in range(n) for name, m in minutes.items()]


def guess(rows: list[Worked], simulated: bool = False) -> tuple[float, float]:
    found = expected_minutes(rows, NAMES, 20.0, simulated=simulated)
    return found["assisted"], found["from_scratch"]


def test_without_enough_history_it_is_the_prior() -> None:
    """One annotation fewer than enough says nothing."""
    assert guess([]) == (20.0, 20.0)
    assert guess(worked(ENOUGH - 1, {"kidney": 3.0})) == (20.0, 20.0)
    assert guess(worked(ENOUGH, {None: 3.0})) == (3.0, 20.0)


def test_structures_add_up_and_modes_stay_apart() -> None:
    """Kidney 4 + tumour 2 + exam 1 assisted; from scratch its own sum."""
    rows = worked(ENOUGH, {"kidney": 4.0, "tumour": 2.0, None: 1.0}) + worked(6, {"kidney": 11.0}, "from_scratch")
    assert guess(rows) == (7.0, 11.0)


def test_the_best_known_origin_counts_alone() -> None:
    """Measured before imported before typed; each only where there is enough of it; simulated for simulated readers."""
    typed, measured = worked(9, {None: 30.0}, origin="typed"), worked(ENOUGH, {None: 8.0})
    assert guess(typed)[0] == 30.0 and guess(typed + measured)[0] == 8.0
    assert guess(typed + measured[:-1])[0] == 30.0
    assert guess(typed + worked(ENOUGH, {None: 12.0}, origin="imported"))[0] == 12.0
    simulated = worked(9, {None: 2.0}, origin="simulated")
    assert guess(simulated) == (20.0, 20.0)
    assert guess(simulated + measured, simulated=True)[0] == 2.0


def test_a_structure_that_is_new_falls_back_to_totals() -> None:
    """Per-structure means need all structures of the project; else what annotations took in all."""
    assert guess(worked(6, {"kidney": 5.0, "old": 4.0}))[0] == 9.0
