"""Reading DICOM: headers into series, series into volumes, structure sets and segmentations into masks."""

import pydicom.config

# pydicom's warnings quote the value they complain about, and a wrong value may be a patient's: our own rules judge.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
