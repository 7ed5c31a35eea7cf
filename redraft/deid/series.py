"""What of a header does not describe its series: it differs by slice, belongs to the pixels, or stands elsewhere."""

from __future__ import annotations

from pydicom.datadict import tag_for_keyword

_BY_SLICE = """
    SOPInstanceUID InstanceNumber InstanceCreationDate InstanceCreationTime AcquisitionDate AcquisitionTime
    AcquisitionDateTime ContentDate ContentTime ImagePositionPatient SliceLocation TriggerTime FrameReferenceTime
    ImageIndex RescaleSlope RescaleIntercept WindowCenter WindowWidth VOILUTFunction TableHeight TablePosition
    XRayTubeCurrent XRayTubeCurrentInmA Exposure ExposureInmAs ExposureInuAs ExposureTime ExposureTimeInms DecayFactor
    SmallestImagePixelValue LargestImagePixelValue LossyImageCompressionRatio TemporalPositionIdentifier
    PerFrameFunctionalGroupsSequence ReferencedImageSequence SourceImageSequence IrradiationEventUID
    ScatterFractionFactor DeadTimeFactor PrimaryPromptsCountsAccumulated ActualFrameDuration SAR EchoNumbers EchoTime
    DimensionIndexSequence DimensionOrganizationSequence ConversionSourceAttributesSequence NumberOfFrames
    UnassignedPerFrameConvertedAttributesSequence AcquisitionNumber CTDIvol WaterEquivalentDiameter
    ReferencedSeriesSequence SegmentSequence ROIContourSequence StructureSetROISequence RTROIObservationsSequence
    StudiesContainingOtherReferencedInstancesSequence
"""
_OF_PIXELS = """
    SamplesPerPixel PhotometricInterpretation PlanarConfiguration Rows Columns PixelAspectRatio BitsAllocated BitsStored
    HighBit PixelRepresentation PixelData FloatPixelData DoubleFloatPixelData ExtendedOffsetTable
    ExtendedOffsetTableLengths PixelPaddingValue PixelPaddingRangeLimit RedPaletteColorLookupTableDescriptor
    GreenPaletteColorLookupTableDescriptor BluePaletteColorLookupTableDescriptor RedPaletteColorLookupTableData
    GreenPaletteColorLookupTableData BluePaletteColorLookupTableData SmallestPixelValueInSeries
    LargestPixelValueInSeries
"""
# The exam's own pseudonym and UIDs stand beside the header in exam.json.
_ELSEWHERE = """
    PatientName PatientID SpecificCharacterSet
"""
OF_SERIES_NOT: frozenset[int] = frozenset(
    tag for word in (_BY_SLICE + _OF_PIXELS + _ELSEWHERE).split() if (tag := tag_for_keyword(word)) is not None
)
