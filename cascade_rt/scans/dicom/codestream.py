"""The size that a compressed image says it has, so that no decoder allocates memory for an image nobody expects."""

_JPEG, _JPEG_2000, _JPEG_2000_SIZE = b"\xff\xd8", b"\xff\x4f\xff\x51", 8
_BARE = frozenset({0x01, *range(0xD0, 0xD8)})
"""Markers without a segment."""
_FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xF7})
"""Markers of the segments with the size: JPEG, and JPEG-LS."""
_SCAN = 0xDA
_LONGEST_BOXES = 1 << 16


def stated_size(stream: bytes) -> tuple[int, int] | None:
    """Return the rows and columns that a JPEG, JPEG-LS or JPEG 2000 image states; None for other formats and damage."""
    if stream[:2] == _JPEG:
        return _size_of_jpeg(stream)
    at = stream.find(_JPEG_2000, 0, _LONGEST_BOXES)
    if at < 0 or len(stream) < at + _JPEG_2000_SIZE + 16:
        return None
    right, bottom, left, top = (int.from_bytes(stream[place : place + 4], "big") for place in range(at + 8, at + 24, 4))
    return bottom - top, right - left


def _size_of_jpeg(stream: bytes) -> tuple[int, int] | None:
    at = 2
    while at + 9 <= len(stream):
        if stream[at] != 0xFF:
            return None
        kind = stream[at + 1]
        if kind in _FRAMES:
            return int.from_bytes(stream[at + 5 : at + 7], "big"), int.from_bytes(stream[at + 7 : at + 9], "big")
        if kind == _SCAN:
            return None
        # A marker may be preceded by any number of fill bytes.
        at += 1 if kind == 0xFF else 2 if kind in _BARE else 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
    return None
