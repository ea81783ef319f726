"""An engine that takes less at once where memory is short."""

from collections.abc import Mapping

import numpy as np

from cascade_rt.common.tensors import Stage
from cascade_rt.engines.base import Array, EngineInfo, StageEngine
from cascade_rt.errors import EngineOutOfMemoryError


class SplittingEngine:
    """Runs another engine, under the contract of `StageEngine`, and halves its batches whenever memory runs out.

    Row i of an output depends on row i of the input alone, so the parts of a batch together are the batch. What once
    was too much is not tried again.
    """

    def __init__(self, engine: StageEngine) -> None:
        self._engine = engine
        self.largest_batch: int | None = None
        """The most images that are tried at once; None: whatever comes."""
        self.halvings = 0
        """How often that was halved."""

    @property
    def stage(self) -> Stage:
        """The stage it runs."""
        return self._engine.stage

    @property
    def info(self) -> EngineInfo:
        """What the engine inside is."""
        return self._engine.info

    @property
    def preferred_batch(self) -> int:
        """What the engine inside prefers, or what memory was enough for."""
        preferred = self._engine.preferred_batch
        return preferred if self.largest_batch is None else min(preferred, self.largest_batch)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Compute the stage's outputs (see `StageEngine`).

        Raises:
            EngineOutOfMemoryError: There is no memory for a single image.
        """
        count = len(next(iter(inputs.values())))
        size = count if self.largest_batch is None else min(count, self.largest_batch)
        parts: list[dict[str, Array]] = []
        first = 0
        while first < count:
            try:
                parts.append(self._engine.run({name: array[first : first + size] for name, array in inputs.items()}))
            except EngineOutOfMemoryError:
                if size == 1:
                    raise
                size //= 2
                self.largest_batch = size
                self.halvings += 1
                continue
            first += size
        if len(parts) == 1:
            return parts[0]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def close(self) -> None:
        """Free the engine inside."""
        self._engine.close()
