"""An engine that reduces its batch size when memory runs out."""

from collections.abc import Mapping

import numpy as np

from cascade_rt.common.tensors import Stage
from cascade_rt.engines.base import Array, EngineInfo, StageEngine
from cascade_rt.errors import EngineOutOfMemoryError


class SplittingEngine:
    """Wraps another engine, fulfilling the contract of `StageEngine`, and halves batches whenever memory runs out.

    Row i of an output depends only on row i of the input, so a batch can be split without changing the result. A batch
    size that was too large is not retried.
    """

    def __init__(self, engine: StageEngine) -> None:
        self._engine = engine
        self.largest_batch: int | None = None
        """Largest batch size to try, or None if unlimited."""
        self.halvings = 0
        """Number of times the batch size was halved."""

    @property
    def stage(self) -> Stage:
        """The stage that this engine runs."""
        return self._engine.stage

    @property
    def info(self) -> EngineInfo:
        """Description of the wrapped engine."""
        return self._engine.info

    @property
    def preferred_batch(self) -> int:
        """Batch size recommended by the wrapped engine, limited to what fits in memory."""
        preferred = self._engine.preferred_batch
        return preferred if self.largest_batch is None else min(preferred, self.largest_batch)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Compute the stage's outputs (see `StageEngine`).

        Raises:
            EngineOutOfMemoryError: There is not enough memory for a single image.
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
        """Close the wrapped engine."""
        self._engine.close()
