"""Which package decodes which transfer syntax: the fastest that is installed, or a sentence that names one."""

from dataclasses import dataclass
from typing import Any

from cascade_rt.common.packages import pip_install
from cascade_rt.errors import BackendUnavailableError, InputError

_GDCM = "python-gdcm"


@dataclass(frozen=True, slots=True)
class _Codec:
    plugins: tuple[str, ...]
    """Names of pydicom's plug-ins, the fastest first."""
    package: str | None = None
    """What to install if there is none of them; None: the extra. Licensed under Apache or BSD."""


_JPEG = _Codec(("gdcm", "pylibjpeg"), _GDCM)
_JPEG_LS = _Codec(("pyjpegls", "gdcm"))
_JPEG_2000 = _Codec(("pylibjpeg", "gdcm", "pillow"))
_CODECS = {
    "1.2.840.10008.1.2.4.50": _JPEG,
    "1.2.840.10008.1.2.4.51": _JPEG,
    "1.2.840.10008.1.2.4.57": _JPEG,
    "1.2.840.10008.1.2.4.70": _JPEG,
    "1.2.840.10008.1.2.4.80": _JPEG_LS,
    "1.2.840.10008.1.2.4.81": _JPEG_LS,
    "1.2.840.10008.1.2.4.90": _JPEG_2000,
    "1.2.840.10008.1.2.4.91": _JPEG_2000,
    "1.2.840.10008.1.2.4.201": _Codec(("pylibjpeg",)),
    "1.2.840.10008.1.2.4.202": _Codec(("pylibjpeg",)),
    "1.2.840.10008.1.2.4.203": _Codec(("pylibjpeg",)),
    "1.2.840.10008.1.2.5": _Codec(("pylibjpeg", "pydicom")),
}
"""By the UID of the transfer syntax, CPU ms for 512 x 512 pixels of 16 bits: JPEG-LS 5 (gdcm 8), JPEG 2000 23 (gdcm 27,
pillow 28), HTJ2K 4, RLE 0.7 (pydicom 6)."""


def decoder_of(shown: str, syntax: Any) -> tuple[Any, str] | None:
    """Return pydicom's decoder of a transfer syntax and the name of the plug-in to use; None if nothing is compressed.

    Args:
        shown: How messages name the file.
        syntax: The UID of the transfer syntax, or None.

    Raises:
        InputError: The transfer syntax is missing, or nobody decodes it.
        BackendUnavailableError: No package that decodes it is installed.
    """
    from pydicom.pixels.decoders.base import get_decoder

    if syntax is None or not syntax.is_transfer_syntax:
        raise InputError(f"{shown}: has no transfer syntax; export the series again", code="E_SYNTAX")
    if not syntax.is_encapsulated:
        return None
    codec = _CODECS.get(str(syntax))
    if codec is None:
        sentence = f"its pixels are stored as {syntax.name}, which is not supported"
        raise InputError(f"{shown}: {sentence}; convert the series with dcm2niix", code="E_SYNTAX")
    decoder = get_decoder(syntax)
    available = decoder.available_plugins if decoder.is_available else ()
    for plugin in codec.plugins:
        if plugin in available:
            return decoder, plugin
    remedy = pip_install("dicom") if codec.package is None else f"pip install {codec.package}"
    raise BackendUnavailableError(f"{shown}: {syntax.name} needs a decoder; run: {remedy}")
