"""Slices of patients that come with the package, for demonstration; benchmarks/patients/demo_patient.py made them."""

from pathlib import Path

from cascade_rt.scans.nifti.options import ScanOptions

FOLDER = Path(__file__).parents[1] / "assets" / "demo_patient"
SCAN, LABEL, ATTRIBUTION = (FOLDER / name for name in ("scan.nii.gz", "label.nii.gz", "ATTRIBUTION.md"))
SOURCE = "NIH Pancreas-CT (Roth et al.), CC BY 3.0"
"""Where they come from, and their licence."""
READING = ScanOptions(assume_hu=True, scattered=True)
"""Below 0 and above 255 HU nothing is left of them, which is how files look that hold no HU; and each slice is of
another patient."""
