"""DICOM objects of a segmentation: SEG, SR and RTSTRUCT, which refer to the images that the scan was read from.

They are the only results that hold patient data: an archive files an object by its patient and study, so both are
copied from the headers of the scan (docs/decisions/0025-dicom-results.md). The same scan, bundle and mask give the same
bytes. Heavy libraries are imported when an object is written.
"""

from cascade_rt.results.dicom.rtstruct import write_rtstruct
from cascade_rt.results.dicom.seg import write_segmentation
from cascade_rt.results.dicom.sr import write_report

__all__ = ["write_report", "write_rtstruct", "write_segmentation"]
