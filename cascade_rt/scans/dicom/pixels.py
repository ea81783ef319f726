"""The stored values of slices, from the bytes of their files."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from cascade_rt.errors import InputError
from cascade_rt.scans.dicom.codestream import stated_size
from cascade_rt.scans.dicom.decoders import decoder_of
from cascade_rt.scans.dicom.headers import Header, dicom_gate, plain_content
from cascade_rt.scans.dicom.slices import Slice, image_shape
from cascade_rt.scans.dicom.values import integer

Pixels = npt.NDArray[Any]

_UNDEFINED_LENGTH = 0xFFFFFFFF
_INTEGERS_TAG = 0x0010
"""Second half of the tag of integer pixels."""
_PADDING, _PADDING_LIMIT = 0x00280120, 0x00280121
_LARGEST_PADDING = 4096
"""Maximum number of bytes after the image: some programs fill up to whole blocks."""

_LARGEST_REST = 64 << 20
"""Maximum number of bytes of everything that is neither header nor pixels, such as overlays and private elements."""


@dataclass(frozen=True, slots=True)
class _Layout:
    """How the pixels of a file are stored."""

    rows: int
    columns: int
    frames: int
    bits: int
    """Per pixel, allocated."""
    bits_stored: int
    is_signed: bool
    is_little: bool

    @property
    def dtype(self) -> np.dtype[Any]:
        order = "<" if self.is_little else ">"
        return np.dtype(f"{order}{'i' if self.is_signed else 'u'}{self.bits // 8}")

    @property
    def frame_bytes(self) -> int:
        return self.rows * self.columns * self.bits // 8


class PixelFile:
    """The content of one file, from which its images are decoded one at a time.

    Raises:
        InputError: The file cannot be read, or has no images of the stated size.
        BackendUnavailableError: No package that decodes the pixels is installed.
    """

    def __init__(self, header: Header) -> None:
        self._shown = header.file.shown
        self._header = header
        self._layout = _layout(header)
        self._decoder = decoder_of(self._shown, header.syntax)
        most = self._most_bytes()
        if header.file.size > most:
            sentence = f"has {header.file.size:,} bytes, far more than its pixels need"
            raise InputError(f"{self._shown}: {sentence}; export the series again", code="E_SIZE_LIE")
        self._content = plain_content(self._shown, header.file.read(), most)
        self._start = self._locate()
        self._frames = [] if self._decoder is None else self._split()

    def frame(self, index: int) -> Pixels:
        """Decode an image `[row, col]`, stored values, in native byte order.

        Args:
            index: From 0.

        Raises:
            InputError: The image is damaged.
        """
        if self._decoder is None:
            return self._native(index)
        from pydicom.encaps import encapsulate

        decoder, plugin = self._decoder
        layout = self._layout
        self._check_size(stated_size(self._frames[index]) or (layout.rows, layout.columns))
        with dicom_gate(self._shown), _rust_gate(), np.errstate(all="ignore"):
            values, _ = decoder.as_array(
                encapsulate([self._frames[index]], has_bot=False),
                index=0,
                raw=True,
                decoding_plugin=plugin,
                rows=layout.rows,
                columns=layout.columns,
                number_of_frames=1,
                samples_per_pixel=1,
                photometric_interpretation="MONOCHROME2",
                bits_allocated=layout.bits,
                bits_stored=layout.bits_stored,
                pixel_representation=int(layout.is_signed),
                pixel_keyword="PixelData",
            )
        self._check_size(values.shape)
        found: Pixels = values
        return found

    def _most_bytes(self) -> int:
        """Return how long the file may be, so that what follows the pixels does not fill the memory."""
        if self._header.pixels_at is None:
            raise _without_pixels(self._shown)
        # Twice, because noise may grow when it is compressed.
        return self._header.pixels_at + 2 * self._layout.frames * self._layout.frame_bytes + _LARGEST_REST

    def _split(self) -> list[bytes]:
        """Return the compressed image of each frame."""
        from pydicom.encaps import generate_frames

        dataset, count = self._header.dataset, self._layout.frames
        with dicom_gate(self._shown):
            offsets = [dataset.get(tag) for tag in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")]
            extended = None if None in offsets else (offsets[0], offsets[1])
            fragments = bytes(memoryview(self._content)[self._start :])
            self._content = b""
            frames = list(islice(generate_frames(fragments, number_of_frames=count, extended_offsets=extended), count))
        if len(frames) != count:
            raise self._truncated()
        return frames

    def _check_size(self, found: tuple[int, ...]) -> None:
        expected = (self._layout.rows, self._layout.columns)
        if found != expected:
            sentence = f"has pixels of shape {found}, but its header says {expected}"
            raise InputError(f"{self._shown}: {sentence}; copy it again", code="E_SIZE_LIE")

    def _native(self, index: int) -> Pixels:
        layout = self._layout
        start = self._start + index * layout.frame_bytes
        values = np.frombuffer(self._content, layout.dtype, layout.rows * layout.columns, start)
        pixels: Pixels = values.astype(layout.dtype.newbyteorder("="), copy=False).reshape(layout.rows, layout.columns)
        unused = layout.bits - layout.bits_stored
        if unused:
            # Old scanners stored overlays in the unused bits.
            pixels = (pixels << unused) >> unused
        return pixels

    def _locate(self) -> int:
        """Return where the value of the pixels begins, and check that it can hold them."""
        at, content, layout = self._header.pixels_at, self._content, self._layout
        if at is None:
            raise _without_pixels(self._shown)
        implicit = bool(self._header.dataset.original_encoding[0])
        order = "little" if layout.is_little else "big"
        start = at + (8 if implicit else 12)
        length = int.from_bytes(content[start - 4 : start], order)  # type: ignore[arg-type]
        if int.from_bytes(content[at + 2 : at + 4], order) != _INTEGERS_TAG:  # type: ignore[arg-type]
            raise InputError(f"{self._shown}: its pixels are not integers; export the original CT", code="E_DTYPE")
        if self._decoder is not None:
            if length != _UNDEFINED_LENGTH and start + length > len(content):
                raise self._truncated()
            return start
        needed = layout.frames * layout.frame_bytes
        if start + needed > len(content):
            raise self._truncated()
        if length == _UNDEFINED_LENGTH or not needed <= length <= needed + min(
            _LARGEST_PADDING, layout.frame_bytes // 8
        ):
            sentence = f"its header describes {needed:,} bytes of pixels, but it has {length:,}"
            raise InputError(f"{self._shown}: {sentence}; copy it again", code="E_SIZE_LIE")
        return start

    def _truncated(self) -> InputError:
        sentence = "is damaged or cannot be decoded, because its pixels are truncated"
        return InputError(f"{self._shown}: {sentence}; copy it again", code="E_TRUNCATED")


@contextmanager
def _rust_gate() -> Iterator[None]:
    """Turn a panic of a decoder written in Rust, which is no `Exception`, into an error about the data."""
    try:
        yield
    except BaseException as error:
        if type(error).__module__ != "pyo3_runtime":
            raise
        raise ValueError("the decoder has panicked") from error


def read_stored(entry: Slice) -> Pixels:
    """Read the stored values of one slice `[row, col]`. Raises like `PixelFile`."""
    return PixelFile(entry.header).frame(entry.frame or 0)


def check_pixels(header: Header) -> None:
    """Refuse a header whose pixels cannot be decoded here, before any are read. Raises like `PixelFile`."""
    if header.pixels_at is None:
        raise _without_pixels(header.file.shown)
    _layout(header)
    decoder_of(header.file.shown, header.syntax)


def _without_pixels(shown: str) -> InputError:
    return InputError(f"{shown}: has no pixels (truncated copy?); copy it again or remove it", code="E_TRUNCATED")


def padding_of(header: Header) -> tuple[int, int] | None:
    """Return the lowest and the highest stored value that mean "no pixel here"; None if the header names none.

    Raises:
        InputError: The value is not a number.
    """
    dataset = header.dataset
    with dicom_gate(header.file.shown):
        value = integer(dataset, _PADDING)
        if value is None:
            return None
        layout = _layout(header)
        ends = [_as_stored(end, layout) for end in (value, integer(dataset, _PADDING_LIMIT, value)) if end is not None]
    return min(ends), max(ends)


def _as_stored(value: int, layout: _Layout) -> int:
    """Return a value that may be written with the other signedness, or in more bits than pixels have, as it is read."""
    value %= 1 << layout.bits_stored
    return value - (1 << layout.bits_stored) if layout.is_signed and value >> (layout.bits_stored - 1) else value


def _layout(header: Header) -> _Layout:
    dataset, shown = header.dataset, header.file.shown
    with dicom_gate(shown):
        bits = integer(dataset, 0x00280100) or 0
        rows, columns = image_shape(shown, dataset)
        high_bit = integer(dataset, 0x00280102)
        layout = _Layout(
            rows=rows,
            columns=columns,
            frames=integer(dataset, 0x00280008) or 1,
            bits=bits,
            bits_stored=integer(dataset, 0x00280101) or bits,
            is_signed=integer(dataset, 0x00280103) == 1,
            is_little=dataset.original_encoding[1] is not False,
        )
    if bits not in {8, 16, 32} or not 1 <= layout.bits_stored <= bits:
        sentence = f"its pixels have {layout.bits_stored} of {bits} bits, which no CT has"
        raise InputError(f"{shown}: {sentence}; export the original CT series", code="E_DTYPE")
    if high_bit not in {None, layout.bits_stored - 1}:
        sentence = f"its pixels lie in bits up to {high_bit}, not in the lowest {layout.bits_stored}"
        raise InputError(f"{shown}: {sentence}; convert the series with dcm2niix", code="E_DTYPE")
    return layout
