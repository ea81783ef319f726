"""Read NIfTI files: header, placement and voxels are each checked before they are used.

gate           turns everything that can be wrong with a file into an `InputError` with a code and a remedy
header         parses and checks the header: shape, data type, scaling, voxel offset
placement      places the voxels in the world: units, spacing, qform and sform
stream         opens a file and reads its header
voxel_stream   streams the voxels in stored order, up to the end of the file
decompression  decompresses gzip, zlib and bzip2, and verifies their checksums
blocks         reads a stream into an array, a few slabs at a time
conversion     converts stored values to Hounsfield units or labels, block by block
foreign        identifies files that are not NIfTI
options        user-supplied facts that a file does not state

The readers of NRRD and MetaImage share everything but the header and its placement.
"""
