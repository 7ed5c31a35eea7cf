"""Columns of table E.1-1 for the options that a project may choose (PS3.15 E.3), which the package does not ship."""

from __future__ import annotations

from functools import lru_cache

from pydicom.datadict import tag_for_keyword

from redraft.deid.profile import table

# Codes of CID 7050 (PS3.16); pydicom's dictionary holds their meanings.
PROFILE_CODE = "113100"
CLEAN_DESCRIPTORS = "113105"
CODES = {"longitudinal_modified_dates": "113107", "patient_characteristics": "113108", "device": "113109"}

# E.3.8: keep device identity. Makers' words stay; what names the single device becomes a pseudonym, so that exams of
# one device can still be told.
_DEVICE = """
    CassetteID DetectorID DeviceLabel DeviceSerialNumber GantryID GeneratorID PlateID SourceSerialNumber StationName
    TreatmentMachineName XRayDetectorID XRaySourceID PerformedStationName ScheduledStationName
"""
# E.3.7: keep patient characteristics, as far as they are a known term or a number; text (allergies, special needs,
# ethnic group …) would have to be cleaned, and is removed.
_PATIENT = """
    PatientSex PatientAge PatientSize PatientWeight PregnancyStatus SmokingStatus PatientSexNeutered
"""
# E.3.6: dates and times by which exams are ordered and tracers decay. The option names more (admissions, orders,
# calibrations, menstruation …); nothing here needs them, and they stay removed.
_DATES = """
    StudyDate StudyTime SeriesDate SeriesTime AcquisitionDate AcquisitionTime AcquisitionDateTime ContentDate
    ContentTime InstanceCreationDate InstanceCreationTime StructureSetDate StructureSetTime FrameAcquisitionDateTime
    FrameReferenceDateTime StartAcquisitionDateTime EndAcquisitionDateTime RadiopharmaceuticalStartTime
    RadiopharmaceuticalStopTime RadiopharmaceuticalStartDateTime RadiopharmaceuticalStopDateTime
    DecayCorrectionDateTime ContrastBolusStartTime ContrastBolusStopTime
"""
_ATTRIBUTES = {"device": _DEVICE, "patient_characteristics": _PATIENT, "longitudinal_modified_dates": _DATES}


@lru_cache(maxsize=8)
def kept_by(option: str) -> frozenset[int]:
    """Listed attributes whose action an option changes."""
    tags = (tag_for_keyword(keyword) for keyword in _ATTRIBUTES[option].split())
    return frozenset(tag for tag in tags if tag in table())  # type: ignore[misc]
