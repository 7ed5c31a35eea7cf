"""NIfTI folders: images become exams with their values and places, labels never do, bad files are refused."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from redraft.project import Project
from redraft.volumes import read_volume
from tasks.ingest.admit import take_in
from tasks.ingest.receipts import Receipt

NOW = datetime(2026, 3, 2, 8, 30, tzinfo=UTC)
AFFINE = np.array([[0, -1.5, 0, 40], [0.8, 0, 0, -20], [0, 0, 3, 7], [0, 0, 0, 1.0]])


def image(seed: int = 0, dtype: object = np.int16, shape: tuple[int, ...] = (6, 5, 4)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 100, shape).astype(dtype)  # type: ignore[call-overload]


def store(
    path: Path, array: np.ndarray, affine: np.ndarray | None = AFFINE, units: str = "mm", **forms: np.ndarray
) -> Path:  # fmt: skip
    """Write a NIfTI file as a foreign tool would."""
    path.parent.mkdir(parents=True, exist_ok=True)
    found = nib.Nifti1Image(array, affine, dtype=array.dtype)
    if "sform" in forms:
        found.header.set_sform(forms["sform"], 1)
    if "qform" in forms:
        found.header.set_qform(forms["qform"], 1)
    found.header.set_xyzt_units(units)
    found.to_filename(path)
    return path


def answers(place: Project, *paths: Path) -> dict[str, tuple[str, str]]:
    """Verdict and rule by path below the offered folder."""
    found = {}
    for receipt in take_in(place, paths, NOW, "test"):
        (path,) = receipt.paths
        found["/".join(path.parts[-2:])] = (receipt.verdict, receipt.rule)
    return found


def test_the_msd_layout(project: Callable, offered: Path) -> None:
    """imagesTr are exams, labelsTr are truth; a label without image, or on another grid, is told so."""
    for n in range(8):
        store(offered / "imagesTr" / f"case_{n}.nii.gz", image(n))
        store(offered / "labelsTr" / f"case_{n}.nii.gz", image(n, np.uint8) % 3)
    store(offered / "imagesTr" / "case_8_0000.nii.gz", image(8))
    store(offered / "labelsTr" / "case_8.nii.gz", image(8, np.uint8) % 3)
    store(offered / "labelsTr" / "alone.nii.gz", image(9, np.uint8) % 3)
    store(offered / "labelsTr" / "case_7.nii.gz", image(7, np.uint8, (6, 5, 3)) % 3)
    store(offered / "labelsTr" / "case_6.nii.gz", image(6, np.uint8) % 3, AFFINE + np.eye(4))
    (offered / "labelsTr" / "case_5.nii.gz").write_bytes(b"no image")
    (offered / "dataset.json").write_text("{}")
    place = project()
    found = answers(place, offered)
    expected = {f"imagesTr/case_{n}.nii.gz": ("admitted", "admitted") for n in range(8)}
    expected |= {f"labelsTr/case_{n}.nii.gz": ("refused", "label_not_an_image") for n in range(9)}
    expected |= {
        "imagesTr/case_8_0000.nii.gz": ("admitted", "admitted"),
        "labelsTr/alone.nii.gz": ("refused", "label_without_image"),
        "labelsTr/case_7.nii.gz": ("refused", "label_on_another_grid"),
        "labelsTr/case_6.nii.gz": ("refused", "label_on_another_grid"),
        "labelsTr/case_5.nii.gz": ("refused", "label_unreadable"),
        "offered/dataset.json": ("refused", "not_dicom"),
    }
    assert found == expected
    assert len(place.ledger.rows("exam")) == 9
    assert {row["split"] for row in place.ledger.rows("subject")} == {"pool", "validation", "test"}
    again = answers(place, offered)
    assert again == {
        name: ("duplicate", "known") if verdict == "admitted" else (verdict, rule)
        for name, (verdict, rule) in expected.items()
    }


@pytest.mark.parametrize(
    "dtype", [np.uint8, np.int16, np.uint16, np.int32, np.int64, np.uint64, np.float32, np.float64]
)
def test_values_and_places_are_those_of_the_file(project: Callable, offered: Path, dtype: type) -> None:
    """Every number type comes in with its values; what is stored is a type that every tool reads."""
    path = store(offered / "a.nii.gz", image(1, dtype))
    place = project()
    (receipt,) = take_in(place, [offered], NOW, "test")
    assert receipt.verdict == "admitted" and receipt.exam_id is not None
    stored, original = read_volume(place.image(receipt.exam_id)), nib.load(path)
    np.testing.assert_array_equal(stored.array, np.asanyarray(original.dataobj))
    np.testing.assert_allclose(stored.affine, original.affine, atol=1e-5)
    assert stored.array.dtype.itemsize < 8


def test_integers_beyond_32_bits_are_not_wrapped(project: Callable, offered: Path) -> None:
    """They are kept as floating-point numbers of their size."""
    array = image(1, np.int64)
    array[0, 0, 0] = 2**40
    store(offered / "a.nii.gz", array)
    place = project()
    (receipt,) = take_in(place, [offered], NOW, "test")
    assert receipt.exam_id is not None
    assert read_volume(place.image(receipt.exam_id)).array[0, 0, 0] == 2**40


def spoiled(value: float) -> np.ndarray:
    array = image(0, np.float64)
    array[2, 2, 2] = value
    return array


RGB = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
SHEARED = np.array([[1, 0.3, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
SINGULAR = np.diag([1.0, 0, 1, 1])
BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "nan": (lambda p: store(p, spoiled(np.nan)), "not_finite"),
    "infinite": (lambda p: store(p, spoiled(-np.inf)), "not_finite"),
    "beyond float32": (lambda p: store(p, spoiled(1e300)), "not_finite"),
    "complex": (lambda p: store(p, image(0, np.complex64)), "not_scalar"),
    "colour": (lambda p: store(p, np.zeros((6, 5, 4), RGB)), "not_scalar"),
    "singular": (lambda p: store(p, image(), None, sform=SINGULAR), "singular_affine"),
    "nan affine": (lambda p: store(p, image(), None, sform=np.full((4, 4), np.nan)), "singular_affine"),
    "sheared": (lambda p: store(p, image(), None, sform=SHEARED), "sheared_affine"),
    "forms": (lambda p: store(p, image(), None, sform=AFFINE, qform=np.diag([1, 1, 1, 1.0])), "form_conflict"),
    "metres": (lambda p: store(p, image(), AFFINE, units="meter"), "units"),
    "micrometres": (lambda p: store(p, image(), units="micron"), "units"),
    "nowhere": (lambda p: store(p, image(), None), "no_orientation"),
    "far apart": (lambda p: store(p, image(), np.diag([1, 1, 25, 1.0])), "spacing_too_large"),
    "four dimensions": (lambda p: store(p, image(0, np.int16, (6, 5, 4, 2))), "dimensions"),
    "two dimensions": (lambda p: store(p, image(0, np.int16, (6, 5))), "dimensions"),
    "text": (lambda p: p.write_text("no image"), "unreadable"),
    "empty": (lambda p: p.write_bytes(b""), "unreadable"),
    "cut": (lambda p: p.write_bytes(store(p, image(0, np.int16, (40, 40, 40))).read_bytes()[:-999]), "unreadable"),
}  # fmt: skip


def test_bad_images_are_refused_by_rule_and_the_rest_goes_on(project: Callable, offered: Path) -> None:
    """One of each kind of damage beside one good image."""
    for name, (make, _) in BAD.items():
        make(offered / f"{name}.nii.gz")
    store(offered / "good.nii.gz", image())
    place = project()
    found = answers(place, offered)
    expected = {f"offered/{name}.nii.gz": ("refused", rule) for name, (_, rule) in BAD.items()}
    assert found == expected | {"offered/good.nii.gz": ("admitted", "admitted")}
    assert len(list(place.data.rglob("*.nii.gz"))) == len(place.ledger.rows("exam")) == 1


def test_an_absurd_size_is_refused_before_it_is_read(project: Callable, offered: Path) -> None:
    """A header of 348 bytes that declares 30000 cubed voxels allocates nothing."""
    path = store(offered / "a.nii", image())
    raw = bytearray(path.read_bytes())
    raw[42:48] = np.array([30000] * 3, "<i2").tobytes()
    path.write_bytes(raw)
    assert answers(project(), offered) == {"offered/a.nii": ("refused", "too_large")}


def test_two_files_of_one_name_are_one_exam(project: Callable, offered: Path) -> None:
    """A file stem is all that a NIfTI file says about who it is: the second never overwrites the first."""
    store(offered / "a" / "case.nii.gz", image(1))
    store(offered / "b" / "case.nii.gz", image(2))
    (offered / "c").mkdir()
    (offered / "c" / "case.nii.gz").write_bytes((offered / "a" / "case.nii.gz").read_bytes())
    place = project()
    found = answers(place, offered)
    assert found == {
        "a/case.nii.gz": ("admitted", "admitted"),
        "b/case.nii.gz": ("refused", "changed_after_admission"),
        "c/case.nii.gz": ("duplicate", "known"),
    }
    (exam,) = place.ledger.rows("exam")
    np.testing.assert_array_equal(read_volume(place.image(exam["exam_id"])).array, image(1))


def test_a_changed_file_is_refused_and_the_exam_stays(project: Callable, offered: Path) -> None:
    """The same name with other content after admission."""
    store(offered / "a.nii.gz", image(1))
    place = project()
    answers(place, offered)
    store(offered / "a.nii.gz", image(2))
    assert answers(place, offered) == {"offered/a.nii.gz": ("refused", "changed_after_admission")}
    (exam,) = place.ledger.rows("exam")
    np.testing.assert_array_equal(read_volume(place.image(exam["exam_id"])).array, image(1))


def test_a_project_of_two_modalities_cannot_guess(project: Callable, offered: Path) -> None:
    """A NIfTI file does not say whether it is CT or MR."""
    store(offered / "a.nii.gz", image())
    place = project(("modalities: [CT]", "modalities: [CT, MR]"))
    assert answers(place, offered) == {"offered/a.nii.gz": ("refused", "modality_unknown")}


@given(st.data())
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_damaged_image_stops_an_intake(look: Callable, offered: Path, tmp_path: Path, data: st.DataObject) -> None:
    """Bytes cut off or changed anywhere, packed or not: one receipt, as image and as label."""
    suffix = data.draw(st.sampled_from([".nii", ".nii.gz"]))
    whole = tmp_path / f"whole{suffix}"
    if not whole.exists():
        store(whole, image())
        store(offered / "imagesTr" / "a.nii.gz", image())
    raw = bytearray(whole.read_bytes())
    if data.draw(st.booleans()):
        raw = raw[: data.draw(st.integers(0, len(raw) - 1))]
    else:
        end = len(raw) if suffix.endswith("gz") else 352
        for place in data.draw(st.lists(st.integers(0, end - 1), min_size=1, max_size=4)):
            raw[place] = data.draw(st.integers(0, 255))
    for old in [*offered.glob("imagesTr/b.*"), *offered.glob("labelsTr/*")]:
        old.unlink()
    for name in ("imagesTr/b", "labelsTr/a"):
        (offered / name).parent.mkdir(exist_ok=True)
        (offered / f"{name}{suffix}").write_bytes(raw)
    receipts: list[Receipt] = look(offered)
    assert sorted(receipt.paths[0].name for receipt in receipts) == sorted(["a.nii.gz", f"a{suffix}", f"b{suffix}"])
    assert [r.verdict for r in receipts if r.paths[0] == offered / "imagesTr" / "a.nii.gz"] == ["admitted"]
