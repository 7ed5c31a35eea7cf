"""Small valid inputs of every kind that is read: what the fuzzer starts from."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from redraft.config.schema import Structure
from redraft.dicom.geometry import LPS_TO_RAS
from redraft.phantom.identities import draw_identity
from redraft.phantom.series import Uids, exam_header, write_series
from redraft.segmentation.exam import ExamGeometry
from redraft.segmentation.nrrd_file import write_nrrd
from redraft.segmentation.origin import Origin, dicom_bytes
from redraft.segmentation.rtstruct_out import build_rtstruct
from redraft.segmentation.seg_out import build_seg

Kind = Literal["dicom", "nifti", "archive", "label", "web"]
SLICES, ROWS, COLUMNS = 4, 36, 40  # JPEG 2000 needs 32
SHAPE = (COLUMNS, ROWS, SLICES)
ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"
AT = datetime(2026, 3, 2, 8, 30, 5, tzinfo=UTC)


@dataclass(frozen=True)
class Seed:
    """One input: its files by name. `names` are identifiers in them, which no receipt may repeat."""

    name: str
    kind: Kind
    files: dict[str, bytes] = field(repr=False)
    names: tuple[str, ...] = field(default=(), repr=False)


def build(folder: Path) -> list[Seed]:
    """All seeds; `folder` is for files on the way."""
    datasets = _slices(folder)
    names = tuple(
        str(datasets[0][name].value)
        for name in ("PatientName", "PatientID", "StudyInstanceUID", "SeriesInstanceUID", "AccessionNumber")
    )
    seeds = [Seed(f"ct-{name}", "dicom", change(datasets), names) for name, change in _SYNTAXES.items()]
    seeds += [Seed("enhanced", "dicom", {"e.dcm": _bytes(_enhanced(datasets))}, names)]
    seeds += [Seed("enhanced-rle", "dicom", {"e.dcm": _bytes(_compressed(_enhanced(datasets), RLELossless))}, names)]
    seeds += [Seed("pet", "dicom", _pet(datasets), names), Seed("4d", "dicom", _four_dimensional(datasets), names)]
    plain = _plain(datasets)
    seeds += [Seed("zip", "archive", {"a.zip": _zipped(plain)}, names)]
    seeds += [Seed("tar", "archive", {"a.tar.gz": gzip.compress(_tarred(plain), 1, mtime=0)}, names)]
    seeds += [Seed("tar-plain", "archive", {"a.tar": _tarred(plain)}, names)]
    seeds += [Seed(f"nifti-{name}", "nifti", {f: data}) for name, f, data in _nifti()]
    seeds += [Seed(f"label-{name}", "label", {f: data}) for name, f, data in _labels(folder)]
    return [*seeds, Seed("qido", "web", _web(datasets), names)]


def structures() -> list[Structure]:
    """What the label seeds hold."""
    code = {"category": {"value": "91723000", "meaning": "Anatomical Structure"},
            "type": {"value": "64033007", "meaning": "Kidney"}}  # fmt: skip
    listed: list[dict[str, Any]] = [
        {"name": "kidney", "value": 1, "kind": "organ", "code": code},
        {
            "name": "tumor",
            "value": 2,
            "kind": "tumor",
            "code": {**code, "type": {"value": "108369006", "meaning": "N"}},
        },
    ]
    return [Structure.model_validate(item) for item in listed]


def exam() -> ExamGeometry:
    """The exam that the label seeds were drawn on."""
    lps = np.array([[0.9, 0, 0, -12.5], [0, 1.3, 0, 40.25], [0, 0, 2.5, -300], [0, 0, 0, 1.0]])
    instances = [
        {"uid": f"2.25.{100 + k}", "frame": None, "position_lps": (lps @ [0, 0, k, 1])[:3].tolist()}
        for k in range(SLICES)
    ]
    slices = {
        "frame_of_reference": "2.25.1", "study": "2.25.2", "series": "2.25.3", "sop_class": "1.2.840.10008.5.1.4.1.1.2",
        "orientation_lps": [1.0, 0, 0, 0, 1, 0], "instances": instances,
    }  # fmt: skip
    content = {
        "exam_id": "0123456789abcdef0123", "subject_id": "fedcba9876543210fedc", "modality": "CT",
        "shape": list(SHAPE), "affine_ras": (LPS_TO_RAS @ lps).tolist(), "slices": slices,
    }  # fmt: skip
    return ExamGeometry.of(content)


# -- DICOM ------------------------------------------------------------------------------------------------------------
def _slices(folder: Path) -> list[Dataset]:
    rng = np.random.default_rng(5)
    identity, uids = draw_identity(rng, 5, "ACC5"), Uids.of(99, 5, SLICES)
    hu = rng.integers(-1024, 3072, SHAPE).astype(np.int16)
    write_series(folder / "ct", exam_header(identity, uids, 5, 0), identity, uids, hu, np.diag([2.0, 1.5, 3.0, 1.0]))
    return [pydicom.dcmread(path) for path in sorted((folder / "ct").glob("*.dcm"))]


def _copy(dataset: Dataset) -> Dataset:
    return pydicom.dcmread(io.BytesIO(_bytes(dataset)))


def _bytes(dataset: Dataset, **how: Any) -> bytes:
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, **(how or {"enforce_file_format": True}))
    return buffer.getvalue()


def _plain(datasets: list[Dataset]) -> dict[str, bytes]:
    return {f"{k}.dcm": _bytes(dataset) for k, dataset in enumerate(datasets)}


def _recoded(syntax: str, implicit: bool, little: bool) -> Callable[[list[Dataset]], dict[str, bytes]]:
    def change(datasets: list[Dataset]) -> dict[str, bytes]:
        files = {}
        for k, dataset in enumerate(map(_copy, datasets)):
            dataset.file_meta.TransferSyntaxUID = syntax
            if not little:
                dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
                dataset["PixelData"].VR = "OW"
            files[f"{k}.dcm"] = _bytes(dataset, implicit_vr=implicit, little_endian=little)
        return files

    return change


def _compressed(dataset: Dataset, syntax: str) -> Dataset:
    dataset = _copy(dataset)
    dataset.compress(syntax, generate_instance_uid=False)
    return dataset


def _each(change: Callable[[Dataset], Dataset]) -> Callable[[list[Dataset]], dict[str, bytes]]:
    return lambda datasets: {f"{k}.dcm": _bytes(change(dataset)) for k, dataset in enumerate(datasets)}


def _jpeg_2000(dataset: Dataset) -> Dataset:
    from openjpeg.utils import encode_array

    dataset = _copy(dataset)
    dataset.PixelData = encapsulate([encode_array(dataset.pixel_array, bits_stored=dataset.BitsStored)])
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
    return dataset


def _jpeg_lossless(datasets: list[Dataset]) -> dict[str, bytes]:
    """By GDCM, the one library here that writes it; over files, for its objects do not outlive each other in Python."""
    import gdcm

    files = {}
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "x.dcm")
        for k, dataset in enumerate(datasets):
            Path(path).write_bytes(_bytes(dataset))
            reader = gdcm.ImageReader()
            reader.SetFileName(path)
            assert reader.Read()
            change = gdcm.ImageChangeTransferSyntax()
            change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
            change.SetInput(reader.GetImage())
            assert change.Change()
            writer = gdcm.ImageWriter()
            writer.SetFileName(path)
            writer.SetFile(reader.GetFile())
            writer.SetImage(change.GetOutput())
            assert writer.Write()
            files[f"{k}.dcm"] = Path(path).read_bytes()
    return files


_SYNTAXES: dict[str, Callable[[list[Dataset]], dict[str, bytes]]] = {
    "explicit": _plain,
    "implicit": _recoded("1.2.840.10008.1.2", True, True),
    "big": _recoded("1.2.840.10008.1.2.2", False, False),
    "deflated": _recoded("1.2.840.10008.1.2.1.99", False, True),
    "rle": _each(lambda dataset: _compressed(dataset, RLELossless)),
    "jpeg-ls": _each(lambda dataset: _compressed(dataset, JPEGLSLossless)),
    "jpeg-2000": _each(_jpeg_2000),
    "jpeg-lossless": _jpeg_lossless,
}


def _item(**values: Any) -> Sequence:
    dataset = Dataset()
    for name, value in values.items():
        setattr(dataset, name, value)
    return Sequence([dataset])


def _enhanced(datasets: list[Dataset]) -> Dataset:
    """One multi-frame MR object of the slices (PS3.3 A.36)."""
    result = _copy(datasets[0])
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept"):
        del result[name]
    result.SOPClassUID = result.file_meta.MediaStorageSOPClassUID = ENHANCED_MR
    result.Modality, result.NumberOfFrames = "MR", len(datasets)
    result.SharedFunctionalGroupsSequence = _item(
        PlaneOrientationSequence=_item(ImageOrientationPatient=datasets[0].ImageOrientationPatient),
        PixelMeasuresSequence=_item(PixelSpacing=datasets[0].PixelSpacing, SliceThickness="2"),
    )
    result.PerFrameFunctionalGroupsSequence = Sequence([
        _item(
            FrameContentSequence=_item(StackID="1", InStackPositionNumber=k + 1, FrameAcquisitionNumber=1),
            PlanePositionSequence=_item(ImagePositionPatient=dataset.ImagePositionPatient),
            PixelValueTransformationSequence=_item(RescaleSlope="1", RescaleIntercept="-1024", RescaleType="US"),
        )[0]
        for k, dataset in enumerate(datasets)
    ])  # fmt: skip
    result.PixelData = b"".join(dataset.PixelData for dataset in datasets)
    return result


def _pet(datasets: list[Dataset]) -> dict[str, bytes]:
    files = {}
    for k, dataset in enumerate(map(_copy, datasets)):
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.128"
        dataset.Modality, dataset.Units = "PT", "BQML"
        dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = f"{0.3 + k / 7:.6g}", "0", "BQML"
        files[f"{k}.dcm"] = _bytes(dataset)
    return files


def _four_dimensional(datasets: list[Dataset]) -> dict[str, bytes]:
    files = {}
    for k, dataset in enumerate(map(_copy, datasets)):
        dataset.ImagePositionPatient = [0, 0, 3 * (k % 2)]
        dataset.TemporalPositionIdentifier = 1 + k // 2
        files[f"{k}.dcm"] = _bytes(dataset)
    return files


def _zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(f"exam/{name}"), data, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def _tarred(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(f"exam/{name}")
            info.size, info.pax_headers = len(data), {"comment": "x"}
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


# -- NIfTI, labels, DICOMweb ------------------------------------------------------------------------------------------
def _nifti() -> list[tuple[str, str, bytes]]:
    rng = np.random.default_rng(6)
    found = []
    for name, kind, dtype in (("int16", nib.Nifti1Image, np.int16), ("float", nib.Nifti2Image, np.float64)):
        image = kind(rng.integers(-500, 500, SHAPE).astype(dtype), np.diag([-2.0, -1.5, 3.0, 1.0]))
        image.set_sform(image.affine, 1), image.set_qform(image.affine, 1)
        found.append((name, "x.nii", image.to_bytes()))
        found.append((f"{name}-gz", "x.nii.gz", gzip.compress(image.to_bytes(), 1, mtime=0)))
    return found


def _labels(folder: Path) -> list[tuple[str, str, bytes]]:
    drawn, where = np.zeros(SHAPE, np.uint8), exam()
    drawn[2:7, 3:9, 1:3], drawn[4:6, 4:6, 1] = 1, 2
    origin = Origin("note", "ab" * 32, "SEMIAUTOMATIC", AT, "kidney", "cd" * 32)
    seg = build_seg(drawn, where, structures(), origin)
    fractional = _copy(pydicom.dcmread(io.BytesIO(dicom_bytes(seg))))
    found = [("seg", "x.dcm", dicom_bytes(seg)), ("seg-rle", "x.dcm", _bytes(_byte_seg(fractional)))]
    found.append(("rtstruct", "x.dcm", dicom_bytes(build_rtstruct(drawn, where, structures(), origin))))
    write_nrrd(folder / "x.seg.nrrd", drawn, where, structures())
    found.append(("nrrd", "x.nrrd", (folder / "x.seg.nrrd").read_bytes()))
    image = nib.Nifti1Image(drawn, where.affine)
    found.append(("nifti", "x.nii.gz", gzip.compress(image.to_bytes(), 1, mtime=0)))
    return found


def _byte_seg(dataset: Dataset) -> Dataset:
    """The same as FRACTIONAL, a byte for each voxel, compressed."""
    bits = np.asarray(dataset.pixel_array, np.uint8)
    dataset.SegmentationType, dataset.SegmentationFractionalType = "FRACTIONAL", "PROBABILITY"
    dataset.MaximumFractionalValue = 255
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PixelData = (bits * 255).tobytes()
    dataset["PixelData"].VR = "OB"
    dataset.compress(RLELossless, generate_instance_uid=False)
    return dataset


def _web(datasets: list[Dataset]) -> dict[str, bytes]:
    """Answers of a DICOMweb server: the search, the instances of the series, and the series itself (multipart)."""

    def told(dataset: Dataset, *names: str) -> dict[str, Any]:
        part = Dataset()
        for name in names:
            part[name] = dataset[name]
        return part.to_json_dict()

    first = datasets[0]
    series = told(first, "StudyInstanceUID", "SeriesInstanceUID", "Modality", "SeriesDescription", "StudyDate",
                  "PatientID", "AccessionNumber")  # fmt: skip
    series["00201209"] = {"vr": "IS", "Value": [len(datasets)]}
    listing = [told(dataset, "SOPClassUID", "SOPInstanceUID", "InstanceNumber") for dataset in datasets]
    parts = b"".join(
        b"--edge\r\nContent-Type: application/dicom\r\n\r\n" + _bytes(dataset) + b"\r\n" for dataset in datasets
    )
    return {
        "search.json": json.dumps([series]).encode(),
        "listing.json": json.dumps(listing).encode(),
        "series.multipart": parts + b"--edge--\r\n",
    }
