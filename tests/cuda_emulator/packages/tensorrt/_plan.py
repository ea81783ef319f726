"""A plan: what the builder writes and the runtime reads."""

import json
from dataclasses import asdict, dataclass
from typing import Self

_MAGIC = b"emulated TensorRT plan\n"

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Profile:
    """The smallest, usual and largest shape of each input."""

    shapes: dict[str, tuple[Shape, Shape, Shape]]

    def takes(self, name: str, shape: Shape) -> bool:
        smallest, _, largest = self.shapes[name]
        return len(shape) == len(smallest) and all(
            low <= length <= high for low, length, high in zip(smallest, shape, largest, strict=True)
        )


@dataclass(frozen=True)
class Plan:
    """An ONNX graph, and what it was built with."""

    graph: bytes
    profiles: tuple[Profile, ...]
    detailed: bool
    """Whether the inspector shows more than the names of layers."""

    def to_bytes(self) -> bytes:
        head = {"profiles": [asdict(profile) for profile in self.profiles], "detailed": self.detailed}
        return _MAGIC + json.dumps(head).encode() + b"\n" + self.graph

    @classmethod
    def of_bytes(cls, data: bytes) -> Self | None:
        """None if it is something else."""
        if not data.startswith(_MAGIC):
            return None
        head, _, graph = data[len(_MAGIC) :].partition(b"\n")
        told = json.loads(head)
        profiles = [
            Profile({name: tuple(map(tuple, shapes)) for name, shapes in each["shapes"].items()})
            for each in told["profiles"]
        ]
        return cls(graph, tuple(profiles), told["detailed"])
