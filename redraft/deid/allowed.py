"""What may stay of the attributes that table E.1-1 does not list: the one place, each group with its reason.

An attribute that is neither in the table nor here is removed. Being here is not enough: `values` says per kind of
value what passes, and text passes only as a known term, a known code or a scanner's technical word.
"""

from __future__ import annotations

from functools import lru_cache

from pydicom.datadict import tag_for_keyword

# Group, why it stays, and its attributes (keywords of PS3.6).
ALLOWED: tuple[tuple[str, str, str], ...] = (
    (
        "object",
        "says what kind of object this is and which instance; UIDs are replaced, registered ones kept",
        """SOPClassUID ReferencedSOPClassUID ReferencedSOPClassUIDInFile Modality ImageType FrameType SeriesNumber
        InstanceNumber AcquisitionNumber ImagesInAcquisition SeriesType TypeOfInstances QualityControlImage
        PresentationIntentType ContentQualification ContentLabel ContentDescription BurnedInAnnotation
        RecognizableVisualFeatures LossyImageCompression LossyImageCompressionRatio LossyImageCompressionMethod""",
    ),
    (
        "pixels",
        "without them no pixel can be decoded (PS3.3 C.7.6.3)",
        """SamplesPerPixel PhotometricInterpretation PlanarConfiguration Rows Columns PixelAspectRatio BitsAllocated
        BitsStored HighBit PixelRepresentation NumberOfFrames PixelData FloatPixelData DoubleFloatPixelData
        SmallestImagePixelValue LargestImagePixelValue SmallestPixelValueInSeries LargestPixelValueInSeries
        PixelPaddingValue PixelPaddingRangeLimit ExtendedOffsetTable ExtendedOffsetTableLengths
        RedPaletteColorLookupTableDescriptor GreenPaletteColorLookupTableDescriptor
        BluePaletteColorLookupTableDescriptor RedPaletteColorLookupTableData GreenPaletteColorLookupTableData
        BluePaletteColorLookupTableData PixelPresentation VolumetricProperties VolumeBasedCalculationTechnique
        ComplexImageComponent AcquisitionContrast""",
    ),
    (
        "values",
        "turns stored numbers into Hounsfield units, activity and display values (C.7.6.16.2.9, C.11)",
        """RescaleIntercept RescaleSlope RescaleType Units WindowCenter WindowWidth VOILUTFunction PresentationLUTShape
        PixelValueTransformationSequence FrameVOILUTSequence RealWorldValueMappingSequence RealWorldValueIntercept
        RealWorldValueSlope RealWorldValueFirstValueMapped RealWorldValueLastValueMapped
        DoubleFloatRealWorldValueFirstValueMapped DoubleFloatRealWorldValueLastValueMapped
        MeasurementUnitsCodeSequence QuantityDefinitionSequence SUVType""",
    ),
    (
        "geometry",
        "places every voxel in the patient (C.7.6.2, C.7.6.16)",
        """ImagePositionPatient ImageOrientationPatient PixelSpacing SliceThickness SpacingBetweenSlices SliceLocation
        PatientOrientation PatientPosition PositionReferenceIndicator Laterality ImageLaterality FrameLaterality
        ImagerPixelSpacing PatientOrientationCodeSequence PatientOrientationModifierCodeSequence
        PatientGantryRelationshipCodeSequence PatientEquipmentRelationshipCodeSequence PlanePositionSequence
        PlaneOrientationSequence PixelMeasuresSequence AnatomicalOrientationType""",
    ),
    (
        "frames",
        "functional groups and dimensions of multi-frame objects (C.7.6.16, C.7.6.17); their content is filtered too",
        """SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence FrameContentSequence StackID
        InStackPositionNumber TemporalPositionIndex TemporalPositionIdentifier NumberOfTemporalPositions
        TemporalPositionSequence TemporalPositionTimeOffset TemporalResolution FrameAcquisitionNumber
        FrameReferenceTime FrameAcquisitionDuration FrameAnatomySequence DimensionIndexValues
        DimensionOrganizationSequence DimensionIndexSequence DimensionIndexPointer FunctionalGroupPointer
        DimensionOrganizationType InConcatenationNumber InConcatenationTotalNumber ConcatenationFrameOffsetNumber
        CTImageFrameTypeSequence MRImageFrameTypeSequence PETFrameTypeSequence CardiacSynchronizationSequence
        CardiacCyclePosition NominalCardiacTriggerDelayTime NominalPercentageOfCardiacPhase
        RespiratorySynchronizationSequence RespiratoryCyclePosition NominalPercentageOfRespiratoryPhase
        UnassignedSharedConvertedAttributesSequence UnassignedPerFrameConvertedAttributesSequence
        IrradiationEventIdentificationSequence ImageIndex NumberOfSlices NumberOfTimeSlices NumberOfTimeSlots
        NumberOfRRIntervals TriggerTime FrameTime FrameIncrementPointer""",
    ),
    (
        "references",
        "which images an object belongs to; instances are named by replaced UIDs only",
        """ReferencedFrameNumber ReferencedSegmentNumber ReferencedSeriesSequence ReferencedInstanceSequence
        StudiesContainingOtherReferencedInstancesSequence DerivationImageSequence DerivationCodeSequence
        PurposeOfReferenceCodeSequence SpatialLocationsPreserved SourceInstanceSequence
        ConversionSourceAttributesSequence ReferencedSOPSequence""",
    ),
    (
        "anatomy",
        "what the image or the structure shows, as known terms and codes",
        """BodyPartExamined AnatomicRegionSequence AnatomicRegionModifierSequence PrimaryAnatomicStructureSequence
        PrimaryAnatomicStructureModifierSequence ViewCodeSequence ViewModifierCodeSequence""",
    ),
    (
        "codes",
        "coded concepts; only of published coding schemes, with the scheme's own meaning",
        """CodeValue LongCodeValue CodingSchemeDesignator CodingSchemeVersion CodeMeaning ContextIdentifier
        MappingResource ContextUID MappingResourceUID""",
    ),
    (
        "segmentation",
        "segments of SEG objects (C.8.20)",
        """SegmentationType SegmentationFractionalType MaximumFractionalValue SegmentsOverlap SegmentSequence
        SegmentNumber SegmentLabel SegmentAlgorithmType SegmentAlgorithmName SegmentedPropertyCategoryCodeSequence
        SegmentedPropertyTypeCodeSequence SegmentedPropertyTypeModifierCodeSequence SegmentIdentificationSequence
        RecommendedDisplayCIELabValue RecommendedDisplayGrayscaleValue TrackingID
        SegmentationAlgorithmIdentificationSequence AlgorithmFamilyCodeSequence AlgorithmNameCodeSequence
        AlgorithmName AlgorithmVersion""",
    ),
    (
        "structures",
        "contours of RTSTRUCT objects (C.8.8.5, C.8.8.6, C.8.8.8)",
        """ReferencedFrameOfReferenceSequence RTReferencedStudySequence RTReferencedSeriesSequence ContourImageSequence
        StructureSetROISequence ROINumber ROIGenerationAlgorithm ROIVolume ROIContourSequence ROIDisplayColor
        ContourSequence ContourGeometricType NumberOfContourPoints ContourData ContourNumber ContourSlabThickness
        ContourOffsetVector AttachedContours ReferencedROINumber RTROIObservationsSequence ObservationNumber
        RTROIInterpretedType RTROIIdentificationCodeSequence ROIPhysicalPropertiesSequence ROIPhysicalProperty
        ROIPhysicalPropertyValue ApprovalStatus""",
    ),
    (
        "scanner",
        "models learn from and are audited by scanner type; serial numbers and station names are no part of this",
        """Manufacturer ManufacturerModelName SoftwareVersions MagneticFieldStrength ImagingFrequency ImagedNucleus
        ResonantNucleus SpatialResolution""",
    ),
    (
        "acquisition of CT",
        "physics that changes how the image looks (C.8.2, C.8.15)",
        """ScanOptions AcquisitionType KVP DataCollectionDiameter ReconstructionDiameter DistanceSourceToDetector
        DistanceSourceToPatient GantryDetectorTilt GantryDetectorSlew TableHeight TableSpeed TableFeedPerRotation
        SpiralPitchFactor RotationDirection RevolutionTime SingleCollimationWidth TotalCollimationWidth ExposureTime
        ExposureTimeInms XRayTubeCurrent XRayTubeCurrentInmA Exposure ExposureInmAs ExposureInuAs
        ExposureModulationType GeneratorPower FilterType FilterMaterial FocalSpots ConvolutionKernel
        ReconstructionAlgorithm CTDIvol EstimatedDoseSaving CTDIPhantomTypeCodeSequence WaterEquivalentDiameter
        WaterEquivalentDiameterCalculationMethodCodeSequence DataCollectionCenterPatient
        ReconstructionTargetCenterPatient TablePosition CalciumScoringMassFactorDevice
        CalciumScoringMassFactorPatient MultienergyCTAcquisition AcquisitionDuration ReconstructionFieldOfView
        ReconstructionPixelSpacing ReconstructionAngle ImageFilter CTAcquisitionTypeSequence
        CTAcquisitionDetailsSequence CTTableDynamicsSequence CTPositionSequence CTGeometrySequence
        CTReconstructionSequence CTExposureSequence CTXRayDetailsSequence TubeAngle ConstantVolumeFlag
        FluoroscopyFlag DistanceSourceToDataCollectionCenter DistanceSourceToIsocenter""",
    ),
    (
        "acquisition of MR",
        "physics that changes how the image looks (C.8.3, C.8.13)",
        """ScanningSequence SequenceVariant SequenceName MRAcquisitionType RepetitionTime EchoTime EchoTrainLength
        EchoNumbers InversionTime FlipAngle VariableFlipAngleFlag NumberOfAverages PercentSampling
        PercentPhaseFieldOfView PixelBandwidth NumberOfPhaseEncodingSteps InPlanePhaseEncodingDirection
        AcquisitionMatrix SAR dBdt B1rms AngioFlag TransmitCoilName ReceiveCoilName NominalInterval HeartRate
        LowRRValue HighRRValue IntervalsAcquired IntervalsRejected CardiacNumberOfImages TriggerWindow
        DiffusionBValue DiffusionGradientOrientation DiffusionDirectionality DiffusionAnisotropyType
        PulseSequenceName EchoPulseSequence MultipleSpinEcho PhaseContrast TimeOfFlightContrast
        SteadyStatePulseSequence EchoPlanarPulseSequence SaturationRecovery SpectrallySelectedSuppression
        GeometryOfKSpaceTraversal RectilinearPhaseEncodeReordering SegmentedKSpaceTraversal CoverageOfKSpace
        NumberOfKSpaceTrajectories RFEchoTrainLength GradientEchoTrainLength EffectiveEchoTime ParallelAcquisition
        ParallelAcquisitionTechnique ParallelReductionFactorInPlane ParallelReductionFactorOutOfPlane PartialFourier
        PartialFourierDirection MagnetizationTransfer BloodSignalNulling Tagging T2Preparation InversionRecovery
        FlowCompensation FlowCompensationDirection Spoiling MRTimingAndRelatedParametersSequence
        MRFOVGeometrySequence MREchoSequence MRModifierSequence MRImagingModifierSequence MRReceiveCoilSequence
        MRTransmitCoilSequence ReceiveCoilType TransmitCoilType MRAveragesSequence MRDiffusionSequence
        DiffusionGradientDirectionSequence MRAcquisitionPhaseEncodingStepsInPlane
        MRAcquisitionPhaseEncodingStepsOutOfPlane TransmitterFrequency OperatingModeSequence OperatingModeType
        OperatingMode ApplicableSafetyStandardAgency SpecificAbsorptionRateSequence SpecificAbsorptionRateDefinition
        SpecificAbsorptionRateValue""",
    ),
    (
        "acquisition of PET",
        "corrections and tracer, without which no uptake value can be computed (C.8.9)",
        """CorrectedImage DecayCorrection DecayFactor DoseCalibrationFactor ScatterFractionFactor DeadTimeFactor
        SliceSensitivityFactor ActualFrameDuration CountsSource RandomsCorrectionMethod AttenuationCorrectionMethod
        ScatterCorrectionMethod ReconstructionMethod AxialAcceptance AxialMash TransverseMash CoincidenceWindowWidth
        DetectorElementSize EnergyWindowRangeSequence EnergyWindowLowerLimit EnergyWindowUpperLimit
        AcquisitionStartCondition AcquisitionTerminationCondition AcquisitionStartConditionData
        AcquisitionTerminationConditionData FieldOfViewShape FieldOfViewDimensions CollimatorType
        TypeOfDetectorMotion ReprojectionMethod PrimaryPromptsCountsAccumulated SecondaryCountsAccumulated
        SecondaryCountsType RadiopharmaceuticalInformationSequence RadionuclideCodeSequence
        RadiopharmaceuticalCodeSequence AdministrationRouteCodeSequence RadiopharmaceuticalVolume
        RadionuclideTotalDose RadionuclideHalfLife RadionuclidePositronFraction RadiopharmaceuticalSpecificActivity
        Radiopharmaceutical RadiopharmaceuticalRoute DecayCorrected AttenuationCorrected ScatterCorrected
        DeadTimeCorrected GantryMotionCorrected PatientMotionCorrected CountLossNormalizationCorrected
        RandomsCorrected NonUniformRadialSamplingCorrected SensitivityCalibrated DetectorNormalizationCorrection
        AttenuationCorrectionSource AttenuationCorrectionTemporalRelationship TimeOfFlightInformationUsed
        PETFrameAcquisitionSequence PETFrameCorrectionFactorsSequence PETReconstructionSequence
        PETDetectorMotionDetailsSequence PETPositionSequence PETTableDynamicsSequence ReconstructionType
        IterativeReconstructionMethod NumberOfIterations NumberOfSubsets""",
    ),
    (
        "contrast",
        "whether and how contrast was given; the product's name is free text and is not kept",
        """ContrastBolusRoute ContrastBolusVolume ContrastBolusTotalDose ContrastFlowRate ContrastFlowDuration
        ContrastBolusIngredient ContrastBolusIngredientConcentration ContrastBolusAgentSequence
        ContrastBolusAgentNumber ContrastBolusAdministrationRouteSequence ContrastBolusIngredientCodeSequence
        ContrastBolusUsageSequence ContrastBolusAgentAdministered ContrastBolusAgentDetected ContrastBolusAgentPhase""",
    ),
)  # fmt: skip


@lru_cache(maxsize=1)
def allowed() -> dict[int, str]:
    """Tag to group of every allowed attribute."""
    tags: dict[int, str] = {}
    for group, _why, keywords in ALLOWED:
        for keyword in keywords.split():
            tag = tag_for_keyword(keyword)
            if tag is not None:
                tags[tag] = group
    return tags
