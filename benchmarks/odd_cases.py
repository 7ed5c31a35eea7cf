"""The odd series of `benchmarks.odd_series`, and what is true of each by construction."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import RLELossless, generate_uid

from redraft.phantom.identities import draw_identity
from redraft.phantom.series import Uids, exam_header, write_series

SLICES, ROWS, COLUMNS, STEP = 12, 28, 32, 3.0
GRADIENT = np.array([3.0, 5.0, 7.0])  # per mm of LPS: no flip, shift or stretch leaves the field as it is
LOWEST, TOLERANCE = 20.0, 1.5
MR, PET, CAPTURE = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.128", "1.2.840.10008.5.1.4.1.1.7"
ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"

# Attributes that enhanced objects hold in functional groups.
MOVED = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept",
         "RescaleType", "SliceThickness", "SliceLocation", "GantryDetectorTilt")  # fmt: skip

# Alters slice k; returns what is added to the field there (another volume of the series), or None for nothing.
Change = Callable[[Dataset, int], Any]


@dataclass(frozen=True)
class Truth:
    """What a right volume of a series is.

    Attributes
    ----------
    offsets : tuple of int
        Of the field, one for each volume that the series holds; empty where no volume can be right.
    real : (array, affine), optional
        For real series: the volume that any right one is a piece of.
    why : str
        What is wrong with a volume that is not right.
    """

    offsets: tuple[int, ...] = (0,)
    real: tuple[Any, Any] | None = field(default=None, repr=False)
    why: str = "values in other places than the scanner's"

    def part_of(self, array: Any, affine: Any) -> int | None:
        """Which of the volumes this one is; None for none. `affine` leads to RAS+ mm."""
        if not self.offsets or not np.isfinite(array).all() or min(array.shape) < 1:
            return None
        if self.real is not None:
            return self._piece_of_real(array, affine)
        corner = affine.copy()
        corner[:2] *= -1
        index = np.stack(np.meshgrid(*map(np.arange, array.shape), indexing="ij"), axis=-1)
        expected = (index @ corner[:3, :3].T + corner[:3, 3]) @ GRADIENT + LOWEST
        filled = np.isin(array, [array.min(), 0, -1024, -2000])  # where resampling found no slice, and padding
        for offset in self.offsets:
            right = np.abs(array - expected - offset) < TOLERANCE
            if (right | filled).all() and right.mean() > 0.5:
                return offset
        return None

    def _piece_of_real(self, array: Any, affine: Any) -> int | None:
        whole, place = self.real  # type: ignore[misc]
        steps = np.linalg.inv(place) @ affine
        near = np.rint(steps)
        ends = np.array([[*corner, 1] for corner in product(*((0, n) for n in array.shape))])
        if np.abs((steps - near) @ ends.T).max() > 0.05 or array.shape[2] < 2:
            return None
        index = np.stack(np.meshgrid(*map(np.arange, array.shape), indexing="ij"), axis=-1)
        at = (index @ near[:3, :3].T + near[:3, 3]).astype(int)
        if (at < 0).any() or (at >= whole.shape).any():
            return None
        values = whole[at[..., 0], at[..., 1], at[..., 2]]
        return 0 if np.allclose(array, values, rtol=1e-4, atol=1e-3 * max(1e-9, float(np.abs(values).max()))) else None


# -- the phantom ------------------------------------------------------------------------------------------------------
def build_phantom(root: Path) -> dict[str, Truth]:
    """Write all odd series of the phantom below `root`, each in a folder; their truths by folder name."""
    truths = {}
    for number, (name, (make, truth)) in enumerate(_CASES.items()):
        folder = root / f"{number:02d} {name}"
        folder.mkdir(parents=True)
        make(folder, number)
        truths[folder.name] = truth
    return truths


def _base(folder: Path, number: int, slices: int = SLICES) -> list[Dataset]:
    """Slices of one CT series, upright, from foot to head."""
    identity, uids = draw_identity(np.random.default_rng(number), number, f"ACC{number}"), Uids.of(77, number, slices)
    hu = np.zeros((COLUMNS, ROWS, slices), np.int16)
    scratch = folder.parent / "scratch"
    write_series(scratch, exam_header(identity, uids, number, 0), identity, uids, hu, np.diag([1.0, 2.0, STEP, 1.0]))
    datasets = [pydicom.dcmread(path) for path in sorted(scratch.glob("*.dcm"), reverse=True)]
    for k, dataset in enumerate(datasets):
        dataset.decode()
        dataset.InstanceNumber, dataset.Manufacturer = k + 1, "SIEMENS"
    shutil.rmtree(scratch)
    return datasets


def _paint(dataset: Dataset, offset: float = 0) -> None:
    """The field where the dataset says that its pixels lie, as stored values."""
    origin = np.array(dataset.get("ImagePositionPatient") or [0, 0, 0], float)
    row, column = np.array(dataset.get("ImageOrientationPatient") or [1, 0, 0, 0, 1, 0], float).reshape(2, 3)
    down, across = (float(v) for v in dataset.get("PixelSpacing") or (2, 1))
    j, i = np.mgrid[: dataset.Rows, : dataset.Columns]
    place = origin + i[..., None] * across * row + j[..., None] * down * column
    values = place @ GRADIENT + LOWEST + offset
    slope, intercept = float(dataset.get("RescaleSlope", 1)), float(dataset.get("RescaleIntercept", 0))
    stored = np.rint((values - intercept) / slope)
    kind = "<i2" if dataset.PixelRepresentation else "<u2"
    dataset.PixelData = np.clip(stored, *(np.iinfo(kind).min, np.iinfo(kind).max)).astype(kind).tobytes()


def _save(folder: Path, datasets: Sequence[Dataset]) -> None:
    for n, dataset in enumerate(datasets):
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid(
            entropy_srcs=[folder.name, str(n), str(dataset.SeriesInstanceUID)]
        )
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        # Names in another order than the slices: nothing may depend on them.
        dataset.save_as(folder / f"{n * 7919 % 10007:05d}.dcm", enforce_file_format=True)


def _slices(
    change: Change | None = None, *, copies: int = 1, drop: Sequence[int] = (), slices: int = SLICES,
    after: Callable[[list[Dataset]], Any] | None = None, before: bool = True,
) -> Callable[[Path, int], None]:  # fmt: skip
    """A series of single-frame slices, altered; with `copies`, change sees k from 0 to copies * slices - 1."""

    def make(folder: Path, number: int) -> None:
        datasets = [one for _ in range(copies) for one in _base(folder, number, slices)]
        for k, dataset in enumerate(datasets):
            offset = change(dataset, k) if change else None
            _paint(dataset, offset if isinstance(offset, (int, float)) and not isinstance(offset, bool) else 0)
        datasets = [dataset for k, dataset in enumerate(datasets) if k not in drop]
        if after is not None:
            after(datasets)
        _save(folder, datasets)

    return make


def _set(only: Sequence[int] | None = None, **values: Any) -> Change:
    def change(dataset: Dataset, k: int) -> None:
        if only is None or k in only:
            for name, value in values.items():
                setattr(dataset, name, value)

    return change


def _without(name: str, only: Sequence[int] | None = None) -> Change:
    return lambda d, k: d.__delattr__(name) if only is None or k in only else None


def _at(heights: Callable[[int], float], *, along: tuple[float, float] = (0, 0)) -> Change:
    """Slices at these heights, shifted in their plane by `along` (x, y) per mm of height."""

    def change(dataset: Dataset, k: int) -> None:
        z = round(heights(k), 4)
        dataset.ImagePositionPatient = [round(z * along[0], 4), round(z * along[1], 4), z]

    return change


def _turned(row: Sequence[float], column: Sequence[float]) -> Change:
    """The whole series in another orientation."""
    normal = np.cross(row, column)

    def change(dataset: Dataset, k: int) -> None:
        dataset.ImageOrientationPatient = [f"{v:.8g}" for v in (*row, *column)]
        dataset.ImagePositionPatient = [f"{v:.8g}" for v in np.array([60.0, 20.0, 40.0]) + k * STEP * normal]

    return change


def _volumes(name: str, values: Sequence[Any], also: Change | None = None) -> Change:
    """Several volumes in one series, told apart by an attribute (none when it is empty)."""

    def change(dataset: Dataset, k: int) -> int:
        n = k // SLICES
        if name:
            setattr(dataset, name, values[n])
        if also is not None:
            also(dataset, k)
        dataset.InstanceNumber = k + 1
        return 500 * n

    return change


def _mr(dataset: Dataset) -> None:
    dataset.SOPClassUID, dataset.Modality = MR, "MR"
    dataset.ScanningSequence, dataset.SequenceVariant = "GR", "NONE"
    dataset.RepetitionTime, dataset.EchoTime = "500", "5"
    for name in ("RescaleType", "KVP"):
        if name in dataset:
            delattr(dataset, name)


def _pet(change: Change) -> Change:
    def both(dataset: Dataset, k: int) -> Any:
        dataset.SOPClassUID, dataset.Modality, dataset.Units = PET, "PT", "BQML"
        dataset.RescaleIntercept, dataset.RescaleType, dataset.DecayCorrection = "0", "BQML", "START"
        dataset.CorrectedImage, dataset.SeriesType = ["ATTN"], ["WHOLE BODY", "IMAGE"]
        dataset.BitsStored, dataset.HighBit = 16, 15
        return change(dataset, k)

    return both


def _rgb(dataset: Dataset) -> None:
    grey = np.frombuffer(dataset.PixelData, "<u2").reshape(dataset.Rows, dataset.Columns) // 8
    dataset.PixelData = np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2).tobytes()
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7


def _each(change: Callable[[Dataset], Any], only: Sequence[int] | None = None) -> Callable[[list[Dataset]], None]:
    """After the pixels were painted."""

    def after(datasets: list[Dataset]) -> None:
        for k, dataset in enumerate(datasets):
            if only is None or k in only:
                change(dataset)

    return after


def _captured(dataset: Dataset) -> None:
    dataset.SOPClassUID, dataset.ConversionType, dataset.ImageType = CAPTURE, "WSD", ["DERIVED", "SECONDARY"]


def _localizers(datasets: list[Dataset]) -> None:
    """Two coronal views among the axial slices."""
    for n in (0, 1):
        view = pydicom.dcmread(_buffer(datasets[n]))
        view.ImageOrientationPatient, view.ImagePositionPatient = [1, 0, 0, 0, 0, -1], [0, 10 + n, 60]
        view.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        _paint(view)
        datasets.append(view)


def _buffer(dataset: Dataset) -> Any:
    from io import BytesIO

    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    buffer.seek(0)
    return buffer


def _padded(dataset: Dataset) -> None:
    stored = np.frombuffer(dataset.PixelData, "<u2").reshape(dataset.Rows, dataset.Columns).copy()
    stored[:4], stored[:, :4] = 0, 0  # -1024 after rescaling
    dataset.PixelData = stored.tobytes()
    dataset.add_new("PixelPaddingValue", "US", 0)


def _cut(dataset: Dataset) -> None:
    dataset.PixelData = dataset.PixelData[: len(dataset.PixelData) // 2]


def _overlaid(dataset: Dataset) -> None:
    stored = np.frombuffer(dataset.PixelData, "<u2") | 0xA000
    dataset.BitsStored, dataset.HighBit, dataset.PixelData = 12, 11, stored.tobytes()


def _table(dataset: Dataset) -> None:
    lut = Dataset()
    lut.add_new("LUTDescriptor", "US", [4, 0, 16])
    lut.add_new("LUTData", "US", [0, 10, 20, 30])
    lut.ModalityLUTType = "HU"
    del dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType
    dataset.ModalityLUTSequence = Items([lut])


def _mosaic(folder: Path, number: int) -> None:
    """Siemens' way of old: all slices of a time point as tiles of one image."""
    datasets = _base(folder, number, 3)
    for n, dataset in enumerate(datasets):
        _mr(dataset)
        dataset.Rows, dataset.Columns = ROWS * 2, COLUMNS * 2
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]
        dataset.ImagePositionPatient, dataset.TemporalPositionIdentifier = [-8, -8, 0], n + 1
        _paint(dataset)
    _save(folder, datasets)


def _item(**values: Any) -> Items:
    dataset = Dataset()
    for name, value in values.items():
        setattr(dataset, name, value)
    return Items([dataset])


def _enhanced(
    change: Change | None = None, *, copies: int = 1, drop: Sequence[int] = (), temporal: bool = False,
    rescale: bool = False, mixed: bool = False,
) -> Callable[[Path, int], None]:  # fmt: skip
    """One multi-frame CT object (PS3.3 A.38)."""

    def make(folder: Path, number: int) -> None:
        datasets = [one for _ in range(copies) for one in _base(folder, number)]
        frames = []
        for k, dataset in enumerate(datasets):
            offset = change(dataset, k) if change else None
            if rescale:
                dataset.RescaleSlope = f"{0.5 + k / 64:.10g}"
            _paint(dataset, offset if isinstance(offset, int) else 0)
            if k not in drop:
                frames.append((k, dataset))
        if mixed:
            frames.sort(key=lambda item: (item[0] * 5) % len(datasets))
        result = _base(folder, number)[0]
        for name in MOVED:
            delattr(result, name)
        result.SOPClassUID, result.NumberOfFrames = ENHANCED_CT, len(frames)
        result.PixelData = b"".join(dataset.PixelData for _, dataset in frames)
        result.SharedFunctionalGroupsSequence = _item(
            PixelMeasuresSequence=_item(PixelSpacing=datasets[0].PixelSpacing, SliceThickness="3"),
            CTImageFrameTypeSequence=_item(FrameType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]),
        )
        organisation = generate_uid(entropy_srcs=[folder.name, "dimensions"])
        result.DimensionOrganizationSequence = _item(DimensionOrganizationUID=organisation)
        pointers = [("FrameContentSequence", "TemporalPositionIndex" if temporal else "StackID"),
                    ("FrameContentSequence", "InStackPositionNumber")]  # fmt: skip
        result.DimensionIndexSequence = Items(
            _item(
                DimensionOrganizationUID=organisation, DimensionIndexPointer=tag_for_keyword(pointer),
                FunctionalGroupPointer=tag_for_keyword(group),
            )[0]
            for group, pointer in pointers
        )  # fmt: skip
        groups = []
        for k, dataset in frames:
            time, place = k // SLICES + 1, k % SLICES + 1
            content: dict[str, Any] = {"StackID": "1", "InStackPositionNumber": place}
            content["DimensionIndexValues"] = [time if temporal else 1, place]
            if temporal:
                content["TemporalPositionIndex"] = time
            groups.append(_item(
                FrameContentSequence=_item(**content),
                PlanePositionSequence=_item(ImagePositionPatient=dataset.ImagePositionPatient),
                PlaneOrientationSequence=_item(ImageOrientationPatient=dataset.ImageOrientationPatient),
                PixelValueTransformationSequence=_item(
                    RescaleSlope=dataset.RescaleSlope, RescaleIntercept=dataset.RescaleIntercept, RescaleType="HU"
                ),
            )[0])  # fmt: skip
        result.PerFrameFunctionalGroupsSequence = Items(groups)
        _save(folder, [result])

    return make


def _conflict(datasets: list[Dataset]) -> None:
    """A slice twice, with other pixels."""
    copy = pydicom.dcmread(_buffer(datasets[5]))
    _paint(copy, 300)
    datasets.append(copy)


def _echo(dataset: Dataset, k: int) -> None:
    _mr(dataset)
    dataset.EchoTime, dataset.EchoNumbers = ("5", "25")[k // SLICES], k // SLICES + 1


def _acquired_again(shift: float, number: bool = True) -> Change:
    """A second acquisition of another content, this much higher."""

    def change(dataset: Dataset, k: int) -> int:
        n = k // SLICES
        dataset.ImagePositionPatient = [0, 0, round((k % SLICES) * STEP + n * shift, 4)]
        dataset.InstanceNumber = k + 1
        if number:
            dataset.AcquisitionNumber = n + 1
        return 500 * n

    return change


def _slope(value: Callable[[int], float]) -> Change:
    return lambda dataset, k: setattr(dataset, "RescaleSlope", f"{value(k):.10g}")


def _lose(*names: str) -> Callable[[Dataset], None]:
    def lose(dataset: Dataset) -> None:
        for name in names:
            delattr(dataset, name)

    return lose


def _screenshot(dataset: Dataset) -> None:
    _captured(dataset)
    _lose("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")(dataset)


def _compress(dataset: Dataset) -> None:
    dataset.compress(RLELossless, generate_instance_uid=False)


ORIGINAL = ("ORIGINAL", "PRIMARY")
ACQUISITIONS = _volumes("AcquisitionNumber", [1, 2])
COMPLEX = _volumes("ImageType", [[*ORIGINAL, "M"], [*ORIGINAL, "P"]], lambda d, k: _mr(d))
MIRRORED = _set([6], ImageOrientationPatient=[-1, 0, 0, 0, 1, 0], ImagePositionPatient=[31, 0, 18])
ONE_DEGREE = ["0.99985", "0.01745", 0, "-0.01745", "0.99985", 0]
LYING = _set(SliceThickness="9", SpacingBetweenSlices="1.5", SliceLocation="4")
NONE = Truth((), why="no volume of this can be right")
TWO = Truth((0, 500))
RIGHT = Truth()
OBLIQUE = (np.array([0.8, 0.6, 0]), np.array([-0.36, 0.48, 0.8]))
_CASES: dict[str, tuple[Callable[[Path, int], None], Truth]] = {
    "regular": (_slices(), RIGHT),
    "regular, InstanceNumber at random": (_slices(lambda d, k: setattr(d, "InstanceNumber", (k * 5) % 12 + 1)), RIGHT),
    "spacing 4, 7, 1": (_slices(_at(lambda k: (k // 3) * 12 + (0, 4, 11)[k % 3])), RIGHT),
    "one step 10 % longer": (_slices(_at(lambda k: k * STEP + (0.3 if k > 6 else 0))), RIGHT),
    "spacing doubles in the upper half": (_slices(_at(lambda k: k * STEP + max(0, k - 6) * STEP)), RIGHT),
    "last step half": (_slices(_at(lambda k: k * STEP - (1.5 if k == 11 else 0))), RIGHT),
    "steps grow slowly": (_slices(_at(lambda k: k * STEP + 0.03 * k * k)), RIGHT),
    "one slice missing": (_slices(drop=[5]), RIGHT),
    "three slices missing": (_slices(drop=[3, 4, 8]), RIGHT),
    "a long gap": (_slices(drop=[4, 5, 6, 7]), RIGHT),
    "two slabs far apart": (_slices(_at(lambda k: k * STEP + (100 if k > 5 else 0))), RIGHT),
    "first slice missing": (_slices(drop=[0]), RIGHT),
    "gantry tilted by 15 degrees": (_slices(_at(lambda k: k * STEP, along=(0, 0.268))), RIGHT),
    "gantry tilted by 2 degrees": (_slices(_at(lambda k: k * STEP, along=(0, 0.035))), RIGHT),
    "tilt in the attribute only": (_slices(_set(GantryDetectorTilt="15")), RIGHT),
    "table moved sideways": (_slices(_at(lambda k: k * STEP, along=(0.2, 0))), RIGHT),
    "one slice shifted in its plane": (_slices(_set([6], ImagePositionPatient=[6, 0, 18])), RIGHT),
    "4D by TemporalPositionIdentifier": (_slices(_volumes("TemporalPositionIdentifier", [1, 2]), copies=2), TWO),
    "4D by AcquisitionNumber": (_slices(_volumes("AcquisitionNumber", [1, 2]), copies=2), TWO),
    "4D by TriggerTime": (_slices(_volumes("TriggerTime", ["10", "450"]), copies=2), TWO),
    "4D that nothing tells apart": (_slices(_volumes("", []), copies=2), Truth((0, 500), why="volumes guessed")),
    "two echoes": (_slices(_volumes("", [], _echo), copies=2), TWO),
    "two b-values": (_slices(_volumes("DiffusionBValue", [0.0, 1000.0], lambda d, k: _mr(d)), copies=2), TWO),
    "two acquisitions of unequal length": (_slices(ACQUISITIONS, copies=2, drop=range(20, 24)), TWO),
    "two acquisitions that overlap": (_slices(_acquired_again(18), copies=2), TWO),
    "two acquisitions half a step apart": (_slices(_acquired_again(1.3), copies=2), TWO),
    "two acquisitions in a row": (_slices(lambda d, k: setattr(d, "AcquisitionNumber", k // 6 + 1)), RIGHT),
    "magnitude and phase": (_slices(COMPLEX, copies=2), TWO),
    "identical copies": (_slices(copies=2), RIGHT),
    "two contents of one place": (_slices(after=_conflict), Truth((), why="one of two contents chosen")),
    "slices 0.005 mm apart": (_slices(_acquired_again(0.005, number=False), copies=2), TWO),
    "localizers in the series": (_slices(after=_localizers), RIGHT),
    "one slice turned": (_slices(_set([6], ImageOrientationPatient=[0, 1, 0, -1, 0, 0])), RIGHT),
    "one slice mirrored": (_slices(MIRRORED), RIGHT),
    "one slice 1 degree off": (_slices(_set([6], ImageOrientationPatient=ONE_DEGREE)), RIGHT),
    "one slice larger": (_slices(_set([6], Rows=30)), RIGHT),
    "one slice of other pixel spacing": (_slices(_set([6], PixelSpacing=["2.2", "1.1"])), RIGHT),
    "one slice without a position": (_slices(_without("ImagePositionPatient", [6])), RIGHT),
    "no positions": (_slices(after=_each(_lose("ImagePositionPatient"))), RIGHT),
    "no orientation": (_slices(after=_each(_lose("ImageOrientationPatient"))), NONE),
    "no pixel spacing": (_slices(after=_each(_lose("PixelSpacing"))), NONE),
    "a single slice": (_slices(slices=1), RIGHT),
    "axes not at right angles": (_slices(_set(ImageOrientationPatient=[1, 0, 0, 0.2, 1, 0])), NONE),
    "PET, slope of each slice": (_slices(_pet(_slope(lambda k: 0.05 + k / 37))), RIGHT),
    "PET, first slice of whole numbers": (_slices(_pet(_slope(lambda k: 0.0213 if k else 1))), RIGHT),
    "PET in two units": (_slices(_pet(lambda d, k: _set(range(6), Units="GML", RescaleType="GML")(d, k))), NONE),
    "slope absent in some slices": (_slices(lambda d, k: _without("RescaleSlope", [2, 3])(d, k)), RIGHT),
    "intercept of each slice": (_slices(lambda d, k: setattr(d, "RescaleIntercept", str(-1024 + 10 * k))), RIGHT),
    "MONOCHROME1": (_slices(_set(PhotometricInterpretation="MONOCHROME1")), RIGHT),
    "MONOCHROME1 in one slice": (_slices(_set([4], PhotometricInterpretation="MONOCHROME1")), RIGHT),
    "padding": (_slices(after=_each(_padded)), RIGHT),
    "signed and unsigned slices": (_slices(_set([1, 5], PixelRepresentation=1, RescaleIntercept="0")), RIGHT),
    "overlays in unused bits": (_slices(after=_each(_overlaid)), RIGHT),
    "values through a table": (_slices(after=_each(_table)), NONE),
    "colour in a CT series": (_slices(after=_each(_rgb)), NONE),
    "colour in one slice": (_slices(after=_each(_rgb, [4])), NONE),
    "secondary capture in colour": (_slices(after=_each(lambda d: (_rgb(d), _captured(d)))), NONE),
    "screenshots without a place": (_slices(after=_each(_screenshot)), NONE),
    "two frames of reference": (_slices(_set(range(6, 12), FrameOfReferenceUID="2.25.7")), NONE),
    "two patients in one series": (_slices(_set(range(6, 12), PatientID="another", PatientName="Other^One")), NONE),
    "one slice cut short": (_slices(after=_each(_cut, [6])), RIGHT),
    "one slice compressed": (_slices(after=_each(_compress, [6])), RIGHT),
    "thickness and spacing attributes that lie": (_slices(LYING), RIGHT),
    "negative SpacingBetweenSlices": (_slices(_set(SpacingBetweenSlices="-3", PatientPosition="FFS")), RIGHT),
    "double oblique": (_slices(_turned(*OBLIQUE)), RIGHT),
    "sagittal, left-handed": (_slices(_turned([0, -1, 0], [0, 0, -1])), RIGHT),
    "positions rounded to 0.1 mm": (_slices(_at(lambda k: round(k * 0.625, 1))), RIGHT),
    "mosaic": (_mosaic, NONE),
    "enhanced": (_enhanced(), RIGHT),
    "enhanced, frames out of order": (_enhanced(mixed=True), RIGHT),
    "enhanced, uneven": (_enhanced(_at(lambda k: k * STEP + (0.9 if k > 6 else 0))), RIGHT),
    "enhanced, frame missing": (_enhanced(drop=[5]), RIGHT),
    "enhanced, tilted": (_enhanced(_at(lambda k: k * STEP, along=(0, 0.268))), RIGHT),
    "enhanced, slope of each frame": (_enhanced(rescale=True), RIGHT),
    "enhanced, two time points": (_enhanced(lambda d, k: 500 * (k // SLICES), copies=2, temporal=True), TWO),
    "enhanced, two orientations": (_enhanced(_set(range(6, 12), ImageOrientationPatient=[1, 0, 0, 0, 0, -1])), RIGHT),
    "enhanced, two contents of one place": (_enhanced(lambda d, k: 500 * (k // SLICES), copies=2), Truth((0, 500))),
}  # fmt: skip


# -- real series ------------------------------------------------------------------------------------------------------
def build_real(data: Path, root: Path, series: int = 4) -> dict[str, Truth]:
    """Real series made odd in turn, below `root`; truths by folder name."""
    truths = {}
    number = len(list(root.iterdir()))
    for label, paths in _regular(data, series):
        datasets = [pydicom.dcmread(path) for path in paths]
        whole = _stacked(datasets)
        for name, (change, right) in _REAL.items():
            folder = root / f"{number:02d} real {label}, {name}"
            number += 1
            folder.mkdir(parents=True)
            altered = [pydicom.dcmread(path) for path in paths]
            for dataset in altered:
                dataset.SeriesInstanceUID = generate_uid(entropy_srcs=[folder.name])
            _save(folder, change(altered))
            truths[folder.name] = Truth((0,) if right else (), whole)
    return truths


def _regular(data: Path, series: int) -> list[tuple[str, list[Path]]]:
    """One small regular series of each modality and collection, in slice order."""
    from redraft.dicom.scan import Foreign, files_below, read_header

    found: dict[str, list[Any]] = defaultdict(list)
    for path in files_below([data]):
        header = read_header(path)
        if not isinstance(header, Foreign) and header.text("Modality") in ("CT", "MR", "PT"):
            found[header.text("SeriesInstanceUID")].append(header)
    chosen: dict[str, tuple[str, list[Path]]] = {}
    for uid in sorted(found, key=lambda uid: (len(found[uid]), uid)):
        headers = [h for h in found[uid] if len(h.numbers("ImagePositionPatient")) == 3]
        turns = {h.numbers("ImageOrientationPatient") for h in headers}
        if not 12 <= len(headers) == len(found[uid]) or len(turns) > 1:
            continue
        turn = np.array(headers[0].numbers("ImageOrientationPatient")).reshape(2, 3)
        normal = np.cross(*turn)
        headers.sort(key=lambda h: float(normal @ h.numbers("ImagePositionPatient")))
        steps = np.diff([normal @ h.numbers("ImagePositionPatient") for h in headers])
        original = "DERIVED" not in headers[0].text("ImageType")
        if original and steps.min() > 0.1 and np.ptp(steps) < 0.01 * np.median(steps):
            collection = headers[0].path.relative_to(data).parts[0]
            label = f"{headers[0].text('Modality')} of {collection}"
            chosen.setdefault(label, (label, [h.path for h in headers]))
    return sorted(chosen.values())[:series]


def _stacked(datasets: Sequence[Dataset]) -> tuple[Any, Any]:
    """The volume of regular slices by pydicom alone: (column, row, slice), affine to RAS."""
    slices = [d.pixel_array * float(d.get("RescaleSlope", 1)) + float(d.get("RescaleIntercept", 0)) for d in datasets]
    positions = [np.array(d.ImagePositionPatient, float) for d in datasets]
    turn = np.array(datasets[0].ImageOrientationPatient, float)
    down, across = map(float, datasets[0].PixelSpacing)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = turn[:3] * across, turn[3:] * down
    affine[:3, 2], affine[:3, 3] = (positions[-1] - positions[0]) / (len(positions) - 1), positions[0]
    return np.stack(slices, axis=-1).transpose(1, 0, 2), np.diag([-1.0, -1, 1, 1]) @ affine


def _moved(datasets: list[Dataset]) -> list[Dataset]:
    """One slice lies 40 % of a step further than it did."""
    here, there = (np.array(datasets[n].ImagePositionPatient, float) for n in (6, 7))
    datasets[6].ImagePositionPatient = [f"{v:.8g}" for v in here + 0.4 * (there - here)]
    return datasets


def _sheared(datasets: list[Dataset]) -> list[Dataset]:
    down = np.array(datasets[0].ImageOrientationPatient[3:], float)
    for k, dataset in enumerate(datasets):
        place = np.array(dataset.ImagePositionPatient, float) + 0.5 * k * down
        dataset.ImagePositionPatient = [f"{v:.8g}" for v in place]
    return datasets


def _swapped(datasets: list[Dataset]) -> list[Dataset]:
    """One slice twice, once with the pixels of another."""
    copy = pydicom.dcmread(_buffer(datasets[5]))
    copy.PixelData = datasets[9].PixelData
    return [*datasets, copy]


def _renumbered(datasets: list[Dataset]) -> list[Dataset]:
    for n, dataset in enumerate(datasets):
        dataset.InstanceNumber = 999 - n
    return datasets


_REAL: dict[str, tuple[Callable[[list[Dataset]], list[Dataset]], bool]] = {
    "InstanceNumber reversed": (_renumbered, True),
    "one slice missing": (lambda all_: [d for n, d in enumerate(all_) if n != 5], True),
    "upper half thinned": (lambda all_: [d for n, d in enumerate(all_) if n < 6 or n % 2], True),
    "one slice moved": (_moved, False),
    "tilted": (_sheared, False),
    "two contents of one place": (_swapped, False),
}  # fmt: skip
