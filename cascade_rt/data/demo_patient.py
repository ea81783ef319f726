"""Demonstration slices of patients, shipped with the package. Made by benchmarks/patients/demo_patient.py."""

from pathlib import Path

from cascade_rt.scans.nifti.options import ScanOptions

FOLDER = Path(__file__).parents[1] / "assets" / "demo_patient"
SCAN, LABEL, ATTRIBUTION = (FOLDER / name for name in ("scan.nii.gz", "label.nii.gz", "ATTRIBUTION.md"))
SOURCE = "NIH Pancreas-CT (Roth et al.), CC BY 3.0"
"""Origin and licence of the slices."""
READING = ScanOptions(assume_hu=True, scattered=True)
"""The slices are clipped to 0 to 255 HU, so that they look like a file not in HU, hence `assume_hu`. Each slice is of a
different patient, hence `scattered`."""
