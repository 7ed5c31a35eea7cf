"""Segmentations in and out: DICOM SEG, RTSTRUCT, NIfTI and NRRD, on the exam's own grid and frame of reference."""
