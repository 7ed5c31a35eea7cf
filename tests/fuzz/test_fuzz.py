"""A bounded run of the fuzzer over every reader; longer ones: `python -m tests.fuzz --seconds 600`."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from redraft.workers import Workers
from tests.fuzz.mutate import mutate
from tests.fuzz.run import drawn, fuzz, replay
from tests.fuzz.seeds import Seed, build
from tests.fuzz.target import Answer, Case, start

COUNT = 900


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> list[Seed]:
    return build(tmp_path_factory.mktemp("seeds"))


def test_every_altered_input_ends_in_a_receipt_or_a_sound_volume(tmp_path: Path) -> None:
    """No crash, hang, blow-up, identifier in a receipt, or volume that breaks a rule or differs from pydicom's."""
    report = fuzz(tmp_path / "kept", count=COUNT, seed=20260302, workers=2)
    assert not report.findings, "\n".join(report.lines())
    assert report.cases == COUNT
    # It got behind the first checks: every kind of input was admitted at times, and refused for many reasons.
    admitted = {kind for kind, verdict, _ in report.outcomes if verdict == "admitted"}
    assert admitted == {"archive", "dicom", "label", "nifti", "web"}
    assert len({rule for _, verdict, rule in report.outcomes if verdict == "refused"}) > 45


def test_unaltered_seeds_are_admitted(seeds: list[Seed], tmp_path: Path) -> None:
    """What the fuzzer starts from is whole: each seed gives its volumes, and nothing is wrong with them."""
    from redraft.create import create_project
    from tests.fuzz.seeds import AT

    root = create_project(tmp_path / "project", "kidney-ct", AT, demo_keys=True).root
    judge = start(str(root), str(tmp_path / "work"))
    for seed in seeds:
        answer = judge(Case(seed.name, seed.kind, dict(seed.files), seed.names))
        assert {verdict for verdict, _ in answer.outcomes} == {"admitted"}, (seed.name, answer)
        assert not answer.problems, (seed.name, answer)


def test_what_must_not_happen_is_noticed_as_what_it_is(tmp_path: Path) -> None:
    """A crash, a hang, a blow-up, unforeseen errors and wrong answers of a broken reader; their inputs are kept."""
    report = fuzz(
        tmp_path / "kept", count=40, seed=1, workers=2, only="nifti", limit_seconds=1.0,
        target="tests.fuzz.broken:start",
    )  # fmt: skip
    seen = {finding.split(" {")[0] for finding in report.findings}
    assert seen == {"reader_died", "time_limit", "memory_limit", "reader_failed", "values that are not finite"}
    assert "Abendroth" not in str(report.findings)
    kept = sorted((tmp_path / "kept").iterdir())
    assert kept and all((folder / "about.json").exists() for folder in kept)
    ((path, answer),) = replay(kept[:1])  # the readers themselves do better
    assert path == kept[0] and "Answer(" in answer and "problems=()" in answer


def test_inputs_are_the_same_for_the_same_number(seeds: list[Seed]) -> None:
    """A finding can be made again from seed and number alone."""
    for n in range(200):
        assert drawn(seeds, 7, n) == drawn(seeds, 7, n)
    assert len({tuple(drawn(seeds, 7, n).files.values()) for n in range(200)}) > 190


def test_alterations_often_keep_the_structure(seeds: list[Seed]) -> None:
    """More than a third: else the first check would refuse every input, and nothing behind it would be tried."""
    from redraft.dicom.elements import Bounds
    from redraft.dicom.part10 import walk_file
    from redraft.errors import ReadError

    plain = next(seed for seed in seeds if seed.name == "enhanced")
    whole = 0
    for n in range(300):
        try:
            walk_file(mutate(plain, Random(n))["e.dcm"], Bounds())
            whole += 1
        except ReadError:
            pass
    assert whole > 100


def test_workers_outlive_a_library_s_errors(tmp_path: Path) -> None:
    """An OSError without a number is a library's word on bytes, not the disk's: one job is lost, not the batch."""
    with Workers[bytes, Case, Answer](1, "tests.fuzz.broken:start", ("", ""), 1024) as workers:
        sizes = [bytes(4), bytes(10), bytes(5)]  # number, number, answer
        done = workers.map(sizes, lambda data: Case("x", "nifti", {"x": data}), lambda _: 30.0)
        answers = [answer for _, answer in done]
    assert [getattr(answer, "rule", None) for answer in answers] == ["reader_failed", "reader_failed", None]
    assert answers[0].measured["error"] == "OSError"  # type: ignore[union-attr]
