"""The one gate for NIfTI files: header, placement and voxels, each checked before anything is made of it.

gate        turns all that can be wrong with a file into one `InputError` with a code and a remedy
header      what the first bytes promise: shape, type, scaling, where the voxels begin
placement   where the voxels lie in the world: units, spacing, qform and sform
stream      the voxels of a file in their order, to the end of the file and no further
conversion  stored numbers to Hounsfield units or labels, block by block
foreign     what a file is that is not NIfTI
options     what a user may say about a file that the file does not say itself
"""

from cascade_rt.scans.nifti.names import split_suffix

__all__ = ["split_suffix"]
