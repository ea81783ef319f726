"""Read CT scans from DICOM files into the canonical frame, or refuse them with a one-sentence error.

Needs pydicom (the extra `dicom`). Importing this package does not import it.
"""

from cascade_rt.scans.dicom.reader import DicomReader
from cascade_rt.scans.dicom.series import Series, find_series, read_series
from cascade_rt.scans.dicom.signatures import is_dicom

__all__ = ["DicomReader", "Series", "find_series", "is_dicom", "read_series"]
