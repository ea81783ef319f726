"""Read NIfTI files: header, placement and voxels are each checked before they are used.

gate        turns everything that can be wrong with a file into an `InputError` with a code and a remedy
header      parses and checks the header: shape, data type, scaling, voxel offset
placement   places the voxels in the world: units, spacing, qform and sform
stream      streams the voxels in stored order, up to the end of the file
gunzip      decompresses gzip and verifies its checksums
blocks      reads a stream into an array, a few slabs at a time
conversion  converts stored values to Hounsfield units or labels, block by block
foreign     identifies files that are not NIfTI
names       splits file names at their suffix
options     user-supplied facts that a file does not state
"""

from cascade_rt.scans.nifti.names import split_suffix

__all__ = ["split_suffix"]
