"""Label arrays as DICOM Segmentation (PS3.3 A.51): BINARY, one coded segment per structure, each frame with the image
that it lies on. highdicom builds the object; times and UIDs are set so that the same labels give the same bytes."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from pydicom.valuerep import DS

from redraft import __version__
from redraft.config.schema import Structure
from redraft.errors import LabelError
from redraft.segmentation.colours import colour
from redraft.segmentation.exam import IMAGE_CLASSES, ExamGeometry
from redraft.segmentation.origin import Naming, Origin, filled, project_header, require_codes
from redraft.segmentation.structures import to_code

if TYPE_CHECKING:
    from highdicom.seg import SegmentDescription

SERIES_NUMBER = 7700
IMPLEMENTATION = "2.25.137262418367450191730312358091728849411"


def build_seg(
    labels: NDArray[np.uint8],
    exam: ExamGeometry,
    structures: Sequence[Structure],
    origin: Origin,
    *,
    header: Dataset | None = None,
    naming: Naming | None = None,
) -> Dataset:
    """A segmentation object of one exam.

    Parameters
    ----------
    labels : uint8, shape (I, J, K)
        Values as in project.yaml. Every structure gets a segment, drawn or not; empty frames are left out.
    exam : ExamGeometry
        What the object refers to: pseudonymous, or `named` by the export gateway.
    header : Dataset, optional
        Patient and study; the project's pseudonyms when omitted.

    Raises
    ------
    UsageError
        A structure has no code.
    LabelError
        Rule grid or unknown_values: labels of another shape, or values that no structure has.
    ReadError
        Rule exam_record: the exam's record does not name study and series.
    """
    require_codes(structures)
    exam.complete()
    numbers = _segment_numbers(labels, exam, structures)
    header = filled(header) if header is not None else project_header(exam)
    naming = naming or Naming()
    import highdicom as hd

    orientation = [_decimal(value) for value in exam.orientation_lps]
    positions = [[_decimal(value) for value in exam.position(k)] for k in range(exam.shape[2])]
    spacing = [_decimal(value) for value in exam.spacing]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # names that are no DICOM names are the hospital's own; warnings quote them
        dataset = hd.seg.Segmentation(
            source_images=_sources(exam, header, orientation, positions, spacing),
            # Frames of rows and columns.
            pixel_array=np.ascontiguousarray(numbers.transpose(2, 1, 0)),
            segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=[_describe(n, s, origin, exam, naming) for n, s in enumerate(structures, 1)],
            series_instance_uid=naming.of(exam, origin, "series"),
            series_number=SERIES_NUMBER,
            sop_instance_uid=naming.of(exam, origin, "instance"),
            instance_number=1,
            manufacturer="redraft",
            manufacturer_model_name="redraft",
            software_versions=__version__,
            device_serial_number="redraft",
            content_label=origin.label,
            content_description=origin.label.replace("_", " ").lower(),
            transfer_syntax_uid=ExplicitVRLittleEndian,
            pixel_measures=hd.PixelMeasuresSequence([spacing[1], spacing[0]], spacing[2], spacing[2]),
            plane_orientation=hd.PlaneOrientationSequence(hd.CoordinateSystemNames.PATIENT, orientation),
            plane_positions=[hd.PlanePositionSequence(hd.CoordinateSystemNames.PATIENT, item) for item in positions],
            # An empty draft is all frames; asked to leave them out, highdicom would say so on the terminal.
            omit_empty_frames=bool(numbers.any()),
        )
    finished = _refer(Dataset(dataset), exam, positions)
    finished.PixelData = _packed(finished, numbers, positions)
    _dated(finished, origin, naming.of(exam, origin, "dimensions"))
    return finished


def _segment_numbers(
    labels: NDArray[np.uint8], exam: ExamGeometry, structures: Sequence[Structure]
) -> NDArray[np.uint8]:
    """Label values to segment numbers 1, 2, … in the order of project.yaml."""
    if labels.shape != exam.shape:
        raise LabelError("The labels are not on the exam's grid.", rule="grid", measured={"shape": list(labels.shape)})
    table = np.full(256, 255, np.uint8)
    table[0] = 0
    for n, structure in enumerate(structures, 1):
        table[structure.value] = n
    numbers = table[labels]
    if (numbers == 255).any() and len(structures) < 255:
        unknown = sorted(set(np.unique(labels).tolist()) - {0, *(s.value for s in structures)})
        raise LabelError("The labels hold values of no structure.", rule="unknown_values", measured={"values": unknown})
    return np.asarray(numbers)


def _describe(
    number: int, structure: Structure, origin: Origin, exam: ExamGeometry, naming: Naming
) -> SegmentDescription:
    import highdicom as hd
    from pydicom.sr.codedict import codes

    code = structure.code
    assert code is not None  # require_codes
    algorithm = None
    if origin.model_digest is not None:
        algorithm = hd.AlgorithmIdentificationSequence(
            name=origin.model_name or "redraft", family=codes.cid7162.ArtificialIntelligence,
            version=origin.model_digest[:64], source="redraft",
        )  # fmt: skip
    regions = [hd.sr.CodedConcept.from_code(to_code(code.region))] if code.region is not None else None
    item = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=structure.name,
        segmented_property_category=to_code(code.category),
        segmented_property_type=to_code(code.type),
        algorithm_type=origin.method,
        algorithm_identification=algorithm,
        tracking_uid=naming.of(exam, origin, "tracking", structure.name),
        tracking_id=structure.name,
        anatomic_regions=regions,
        display_color=hd.color.CIELabColor.from_rgb(*colour(number - 1)),
    )
    own = [code.modifier, code.laterality if code.region is None else None]
    if modifiers := [hd.sr.CodedConcept.from_code(to_code(m)) for m in own if m is not None]:
        item.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = modifiers
    if code.region is not None and code.laterality is not None:
        side = hd.sr.CodedConcept.from_code(to_code(code.laterality))
        item.AnatomicRegionSequence[0].AnatomicRegionModifierSequence = [side]
    return item


def _sources(
    exam: ExamGeometry, header: Dataset, orientation: list[DS], positions: list[list[DS]], spacing: list[DS]
) -> list[Dataset]:
    """What highdicom needs to know of the images, one single-frame image per slice; `_refer` names the true ones."""
    _, series, _ = exam.complete()
    images = []
    for k, position in enumerate(positions):
        image = Dataset()
        image.update(header)
        image.SOPClassUID, image.SOPInstanceUID = IMAGE_CLASSES["CT"], f"1.{k + 1}"  # any of single frames
        image.SeriesInstanceUID, image.Modality = series, exam.modality
        image.FrameOfReferenceUID = exam.frame_of_reference
        image.Rows, image.Columns = exam.shape[1], exam.shape[0]
        image.ImageOrientationPatient, image.ImagePositionPatient = orientation, position
        image.PixelSpacing, image.SliceThickness = [spacing[1], spacing[0]], spacing[2]
        images.append(image)
    return images


def _refer(dataset: Dataset, exam: ExamGeometry, positions: list[list[DS]]) -> Dataset:
    """References to the images, whole and per frame (PS3.3 C.12.4, C.7.6.16.2.6)."""
    _, series, sop_class = exam.complete()
    listed = Dataset()
    listed.SeriesInstanceUID = series
    listed.ReferencedInstanceSequence = [
        _reference(sop_class, uid) for uid in dict.fromkeys(p.uid for p in exam.images)
    ]
    dataset.ReferencedSeriesSequence = [listed]
    dataset.SourceImageSequence = [_reference(sop_class, uid) for uid in dict.fromkeys(p.uid for p in exam.images)]
    for item, k in zip(dataset.PerFrameFunctionalGroupsSequence, _slices(dataset, positions), strict=True):
        item.pop("DerivationImageSequence", None)
        if exam.on_grid:
            item.DerivationImageSequence = [_derivation(sop_class, exam, (k,))]
    if not exam.on_grid:  # resampled: every slice comes from several images
        shared = dataset.SharedFunctionalGroupsSequence[0]
        shared.DerivationImageSequence = [_derivation(sop_class, exam, range(len(exam.images)))]
    return dataset


def _group(dataset: Dataset, item: Dataset, name: str) -> Any:
    """A functional group of a frame; what all frames share stands once."""
    return (item if name in item else dataset.SharedFunctionalGroupsSequence[0])[name].value[0]


def _slices(dataset: Dataset, positions: list[list[DS]]) -> list[int]:
    """Slice of each frame, by its position."""
    slice_of = {tuple(map(str, position)): k for k, position in enumerate(positions)}
    return [
        slice_of[tuple(map(str, _group(dataset, item, "PlanePositionSequence").ImagePositionPatient))]
        for item in dataset.PerFrameFunctionalGroupsSequence
    ]


def _packed(dataset: Dataset, numbers: NDArray[np.uint8], positions: list[list[DS]]) -> bytes:
    """The frames as one stream of bits (PS3.5 8.1.1). highdicom begins each frame of under 8 pixels at a byte."""
    segments = [
        int(_group(dataset, item, "SegmentIdentificationSequence").ReferencedSegmentNumber)
        for item in dataset.PerFrameFunctionalGroupsSequence
    ]
    frames = list(zip(segments, _slices(dataset, positions), strict=True))
    parts = []
    for first in range(0, len(frames), 8):  # eight frames end at a byte's border, whatever their size
        bits = [np.equal(numbers[:, :, k].T, segment).ravel() for segment, k in frames[first : first + 8]]
        parts.append(np.packbits(np.concatenate(bits), bitorder="little").tobytes())
    data = b"".join(parts)
    return data + b"\0" * (len(data) % 2)


def _derivation(sop_class: str, exam: ExamGeometry, slices: Sequence[int]) -> Dataset:
    item = Dataset()
    item.DerivationCodeSequence = [_code("113076", "Segmentation")]
    item.SourceImageSequence = []
    for k in slices:
        image = _reference(sop_class, exam.images[k].uid)
        if exam.images[k].frame is not None:
            image.ReferencedFrameNumber = exam.images[k].frame
        image.PurposeOfReferenceCodeSequence = [_code("121322", "Source image for image processing operation")]
        image.SpatialLocationsPreserved = "YES" if exam.on_grid else "NO"
        item.SourceImageSequence.append(image)
    return item


def _reference(sop_class: str, uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, uid
    return item


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
    return item


def _dated(dataset: Dataset, origin: Origin, dimensions: str) -> None:
    """Times of the annotation instead of the export's, one dimension organisation by name, and our own file meta."""
    for name in ("InstanceCreationDate", "ContentDate", "SeriesDate"):
        dataset[name] = _element(name, origin.date)
    for name in ("InstanceCreationTime", "ContentTime", "SeriesTime"):
        dataset[name] = _element(name, origin.time)
    dataset.SeriesDescription = f"Segmentation {origin.label.replace('_', ' ').lower()}"
    for item in (*dataset.DimensionOrganizationSequence, *dataset.DimensionIndexSequence):
        item.DimensionOrganizationUID = dimensions
    dataset.pop("ContributingEquipmentSequence", None)  # highdicom's own, with the hour of writing
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID, meta.ImplementationVersionName = IMPLEMENTATION, "REDRAFT"
    dataset.file_meta = meta


def _element(name: str, value: str) -> Any:
    holder = Dataset()
    setattr(holder, name, value)
    return holder[name]


def _decimal(value: float) -> DS:
    """A DS of at most 16 characters (PS3.5 6.2), never a negative zero."""
    return DS(float(value) + 0.0, auto_format=True)
