"""Enumerations, of which only identity counts."""

from enum import IntEnum


class BuilderFlag(IntEnum):
    TF32 = 7


class ExecutionContextAllocationStrategy(IntEnum):
    STATIC, ON_PROFILE_CHANGE, USER_MANAGED = range(3)


class LayerInformationFormat(IntEnum):
    ONELINE, JSON = range(2)


class MemoryPoolType(IntEnum):
    WORKSPACE = 0


class NetworkDefinitionCreationFlag(IntEnum):
    STRONGLY_TYPED = 0


class ProfilingVerbosity(IntEnum):
    LAYER_NAMES_ONLY, NONE, DETAILED = range(3)


class TensorIOMode(IntEnum):
    NONE, INPUT, OUTPUT = range(3)
