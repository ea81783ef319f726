"""Replace the parameters that library messages name in backticks by the flags of the command line."""

import re

_NAMED_OTHERWISE = {
    "calibration": "--calibrate",
    "half=False": "--no-fp16",
    "output": "-o",
    "require_half=True": "--fp16",
}
_PARAMETERS = (
    "assume_hu",
    "assume_orientation",
    "backend",
    "dataset",
    "hu_offset",
    "label_flip",
    "labels",
    "limits",
    "max_voxels",
    "organ",
    "overwrite",
    "precision",
    "resume",
    "strict",
    "timeout",
    "tumor",
    "volume",
    "workers",
)
_MENTION = re.compile(rf"`({'|'.join(map(re.escape, _NAMED_OTHERWISE))}|(?:{'|'.join(_PARAMETERS)})(?:=[^`]+)?)`")


def with_flags(message: str) -> str:
    """Replace each parameter by its flag: `max_voxels` by --max-voxels, `backend=pytorch` by --backend pytorch."""
    return _MENTION.sub(_flag, message)


def _flag(mention: re.Match[str]) -> str:
    if mention[1] in _NAMED_OTHERWISE:
        return _NAMED_OTHERWISE[mention[1]]
    name, _, value = mention[1].partition("=")
    flag = f"--{name.replace('_', '-')}"
    return flag if value in {"", "True"} else f"{flag} {value}"
