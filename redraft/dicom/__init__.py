"""Reading DICOM: headers into series, series into volumes, structure sets and segmentations into masks."""
