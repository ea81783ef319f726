"""What all parts of an expedition are told."""

import json
from dataclasses import asdict, dataclass
from typing import Literal, Self


@dataclass(frozen=True, slots=True)
class Settings:
    """The device, and the sizes of what is measured."""

    device: Literal["cuda", "cpu"] = "cuda"
    """`cpu` tries the code of the parts that PyTorch does."""
    emulated: bool = False
    """Whether the driver is an emulated one, whose memory is the host's: NumPy then computes in CuPy's place."""
    base_width: int = 64
    side: int | None = None
    """Height and width of images in pixels; None: the usual ones of each stage."""
    batches: tuple[int, ...] = (4, 1, 16)
    rounds: int = 3
    turn_seconds: float = 0.3
    scan_shape: tuple[int, int, int] = (32, 512, 512)
    """Of the synthetic scan `[z, row, col]`."""
    calibration_side: int = 512
    """Height and width of the slices that engines are compared on."""
    packed: str = ""
    """Folder of what `benchmarks.gpu.pack` packed; empty: nothing was carried."""
    site: str = ""
    """Folder of packages that were carried; it is on the path of every part."""
    commit: str = ""

    def to_json(self) -> str:
        """As text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """From text."""
        values = json.loads(text)
        return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})
