"""NRRD in: Slicer's segments, layers and crops; other spaces; and what is refused."""

from __future__ import annotations

import gzip
from pathlib import Path

import nrrd
import numpy as np
import pytest
import SimpleITK

from redraft.config.schema import Structure
from redraft.errors import ExamError
from redraft.segmentation.nrrd_file import write_nrrd
from redraft.segmentation.read import interpret, read_segmentation

SHAPE = (7, 6, 5)


def header(exam, space="left-posterior-superior", **more):
    signs = {"left-posterior-superior": (1, 1, 1), "right-anterior-superior": (-1, -1, 1), "LAS": (1, -1, 1)}[space]
    lps = exam.lps
    return {
        "space": space, "space directions": (lps[:3, :3].T * signs), "space origin": lps[:3, 3] * signs,
        "encoding": "gzip", **more,
    }  # fmt: skip


@pytest.mark.parametrize("space", ["left-posterior-superior", "right-anterior-superior", "LAS"])
@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, ">u2"])
def test_plain_arrays_come_in(space, encoding, dtype, make_exam, make_labels, structures, tmp_path: Path) -> None:
    """The project's own values, in any space, encoding and type of number."""
    exam, labels = make_exam(SHAPE), make_labels(SHAPE)
    nrrd.write(str(tmp_path / "a.nrrd"), labels.astype(dtype), header(exam, space, encoding=encoding))
    np.testing.assert_array_equal(read_segmentation(tmp_path / "a.nrrd", exam, structures), labels)


def test_what_simpleitk_writes_comes_in(make_exam, make_labels, structures, tmp_path: Path) -> None:
    """As MITK and ITK-SNAP do."""
    exam, labels = make_exam(SHAPE), make_labels(SHAPE)
    image = SimpleITK.GetImageFromArray(labels.transpose(2, 1, 0))
    image.SetOrigin(exam.lps[:3, 3].tolist())
    image.SetSpacing(exam.spacing)
    image.SetDirection((exam.lps[:3, :3] / exam.spacing).ravel().tolist())
    SimpleITK.WriteImage(image, str(tmp_path / "a.nrrd"), True)
    np.testing.assert_array_equal(read_segmentation(tmp_path / "a.nrrd", exam, structures), labels)


def test_slicer_s_layers_crops_and_codes_come_in(make_exam, structures, tmp_path: Path) -> None:
    """Overlapping segments in two layers, cropped to what is drawn, values of Slicer's own, named or coded."""
    exam = make_exam(SHAPE)
    layers = np.zeros((2, 4, 3, 2), np.uint8)
    layers[0, 1:, :2], layers[1, :2, 1:] = 5, 1
    fields = header(exam)
    fields["space directions"] = np.vstack([np.full(3, np.nan), fields["space directions"]])
    fields["space origin"] = (exam.lps @ [2, 1, 3, 1])[:3]
    fields |= {
        "kinds": ["list", "domain", "domain", "domain"],
        "Segment0_Name": "Niere", "Segment0_LabelValue": "5", "Segment0_Layer": "0",
        "Segment1_Name": "Segment_2", "Segment1_LabelValue": "1", "Segment1_Layer": "1",
        "Segment1_Tags": "Segmentation.Status:done|TerminologyEntry:x~SCT^49755003^Morphologically Abnormal Structure"
                         "~SCT^108369006^Neoplasm~^^~x~SCT^64033007^Kidney~^^|",
    }  # fmt: skip
    nrrd.write(str(tmp_path / "a.seg.nrrd"), layers, fields)
    found = interpret(tmp_path / "a.seg.nrrd", exam, structures)
    expected = np.zeros(SHAPE, np.uint8)
    part = expected[2:6, 1:4, 3:5]
    part[layers[0] > 0] = 3
    part[layers[1] > 0] = 1
    np.testing.assert_array_equal(found.labels, expected)
    assert found.contested == int(((layers[0] > 0) & (layers[1] > 0)).sum()) > 0


def test_our_own_codes_come_back(make_exam, make_labels, structures, tmp_path: Path) -> None:
    """Found by code where names are other ones."""
    exam, labels = make_exam(SHAPE), make_labels(SHAPE)
    write_nrrd(tmp_path / "a.seg.nrrd", labels, exam, structures)
    content = (tmp_path / "a.seg.nrrd").read_bytes()
    for n, structure in enumerate(structures):
        content = content.replace(f"Segment{n}_Name:={structure.name}".encode(), f"Segment{n}_Name:=S{n}".encode())
    (tmp_path / "a.seg.nrrd").write_bytes(content)
    np.testing.assert_array_equal(read_segmentation(tmp_path / "a.seg.nrrd", exam, structures), labels)


def refused(path: Path, exam, structures: list[Structure]) -> str:
    with pytest.raises(ExamError) as caught:
        read_segmentation(path, exam, structures)
    return caught.value.rule


def test_what_does_not_fit_is_refused(make_exam, make_labels, structures, tmp_path: Path) -> None:
    """Another grid, no or unknown space, unknown values, fractions, and crops that nobody declared."""
    exam, labels, path = make_exam(SHAPE), make_labels(SHAPE), tmp_path / "a.nrrd"
    good = header(exam)
    moved = {**good, "space origin": good["space origin"] + [0, 0, 1.2]}
    mirrored = {**good, "space directions": good["space directions"] * [[-1], [1], [1]]}
    for array, fields, rule in (
        (labels, moved, "grid"), (labels, mirrored, "grid"), (labels[1:], good, "grid"),
        (labels, {k: v for k, v in good.items() if k != "space"} | {"space dimension": 3}, "space"),
        (labels, {**good, "space": "scanner-xyz"}, "space"),
        (labels, {**good, "space units": ["cm", "cm", "cm"]}, "space"),
        (np.full(SHAPE, 2, np.uint8), good, "unknown_values"), (labels + np.float32(0.5), good, "not_integer"),
        (labels, {**good, "Segment0_Name": "kidney", "Segment0_LabelValue": "3"}, "unknown_values"),
    ):  # fmt: skip
        nrrd.write(str(path), array, fields)
        assert refused(path, exam, structures) == rule


def test_damaged_and_hostile_files_are_refused(make_exam, make_labels, structures, tmp_path: Path) -> None:
    """Cut short at any length; data in another file; more bytes than declared; a size beyond the image's."""
    exam, path = make_exam(SHAPE), tmp_path / "a.nrrd"
    nrrd.write(str(path), make_labels(SHAPE), header(exam))
    content = path.read_bytes()
    for cut in (4, 30, content.index(b"\n\n") + 2, len(content) - 4):
        path.write_bytes(content[:cut])
        assert refused(path, exam, structures) in ("unreadable", "space")
    head = content[: content.index(b"\n\n")]
    (tmp_path / "secret.raw").write_bytes(bytes(210))
    path.write_bytes(head + b"\ndata file: secret.raw\n\n")
    assert refused(path, exam, structures) == "detached"
    path.write_bytes(head + b"\n\n" + gzip.compress(bytes(50_000_000)))
    assert refused(path, exam, structures) == "unreadable"
    path.write_bytes(head.replace(b"sizes: 7 6 5", b"sizes: 70000 60000 50000") + b"\n\n")
    assert refused(path, exam, structures) == "too_large"
