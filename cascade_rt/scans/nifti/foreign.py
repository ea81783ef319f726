"""Identify a file that is not NIfTI from its first bytes, without quoting them."""

_SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x1f\x8b", "gzip within gzip"),
    (0, b"BZh", "compressed with bzip2"),
    (0, b"\xfd7zXZ", "compressed with xz"),
    (0, b"\x28\xb5\x2f\xfd", "compressed with zstd"),
    (0, b"PK\x03\x04", "a zip archive"),
    (257, b"ustar", "a tar archive"),
    (128, b"DICM", "DICOM"),
    (0, b"NRRD", "NRRD"),
    (0, b"ObjectType", "MetaImage"),
    (0, b"\x89HDF", "HDF5"),
    (0, b"\x93NUMPY", "a numpy array"),
    (0, b"\x89PNG", "a PNG image"),
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"%PDF", "a PDF document"),
    (0, b"version https://git-lfs", "a Git LFS pointer"),
)


def describe(start: bytes) -> str:
    """Describe a file by its first bytes: at least 348 of them, or the whole file if it is shorter."""
    for offset, signature, description in _SIGNATURES:
        if start[offset : offset + len(signature)] == signature:
            return description
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text[:1] == b"<":
        return "a web page or XML (a login page?)"
    if not any(start):
        return "all zeros"
    if all(32 <= byte < 127 or byte in b"\t\r\n" for byte in start):
        return "text"
    return "unknown format"
