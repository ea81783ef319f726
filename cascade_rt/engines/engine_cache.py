"""A cache of compiled engines, writable only by their owner and read only if they match their key and checksum.

A plan is a program for one GPU and one version of TensorRT, and loading a plan executes it. Plans are therefore never
part of a bundle (docs/decisions/0012): they are compiled on the machine that uses them and cached here.

    FOLDER/<key>/engine.plan    the compiled plan
    FOLDER/<key>/engine.json    all fields of the key, the SHA-256 of the plan, and facts about the engine
    FOLDER/<key>.timing         TensorRT's timing cache; its key leaves out what is specific to a graph
    FOLDER/<key>.lock           held by the process that is compiling the engine

This module is in the library, not in the export package, because the runtime loads plans without being able to compile
them.
"""

import contextlib
import errno
import hashlib
import json
import logging
import math
import os
import secrets
import shutil
import stat
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from cascade_rt.common.atomic import write_bytes
from cascade_rt.common.file_locks import try_lock
from cascade_rt.common.plain_file import NotAPlainFileError, open_plain_file
from cascade_rt.common.tensors import Precision, Stage
from cascade_rt.config import CascadeConfig
from cascade_rt.engines.nvidia import Gpu
from cascade_rt.engines.shape_profiles import ShapeProfile, shape_profiles
from cascade_rt.engines.tensorrt_api import Flavour, import_tensorrt
from cascade_rt.errors import OutputError

CACHE_VARIABLE = "CASCADE_RT_CACHE"
"""Environment variable that overrides the cache folder."""
FORMAT = 1
"""Version of the storage format. Entries of other versions are not found."""
PLAN_NAME = "engine.plan"
FACTS_NAME = "engine.json"
MAX_FACTS_BYTES = 1 << 24
_SECONDS_BETWEEN_TRIES = 0.2
_SECONDS_BETWEEN_LINES = 25.0
"""Interval between log lines while another process compiles."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """Options of the builder. They are part of the key, so plans built with other options are cached separately."""

    workspace_bytes: int | None = None
    """Maximum memory a kernel may use besides its inputs and outputs, or None for all of the GPU's memory."""
    optimization_level: int = 3
    """How long TensorRT searches for fast kernels: 0 (not at all) to 5 (hours)."""
    compute_capability: str | None = None
    """The compute capability that TensorRT-RTX builds for, such as `8.9`, or None for every GPU it knows.

    Not used by TensorRT, which builds for the GPU of this machine.
    """


@dataclass(frozen=True, slots=True)
class Machine:
    """The properties of a machine that a plan is bound to."""

    gpu: str
    """Name of the GPU."""
    compute_capability: str
    """Compute capability of the GPU, such as `9.0`."""
    driver: str
    """Version of the driver or, if unknown, the newest CUDA version that it supports."""
    multiprocessors: int = 0
    """Number of multiprocessors of the GPU, in which GPUs of one name may differ."""

    @classmethod
    def of_gpu(cls, gpu: Gpu) -> Self:
        """Return the machine that has a given GPU. Equal GPUs of a machine share their plans."""
        major, minor = gpu.compute_capability
        return cls(gpu.name, f"{major}.{minor}", gpu.driver or f"CUDA {gpu.cuda}", gpu.multiprocessors)


@dataclass(frozen=True, slots=True)
class EngineKey:
    """Everything a plan depends on. A plan is used only if every field is equal."""

    stage: Stage
    onnx_sha256: str
    precision: Precision
    profiles: tuple[ShapeProfile, ...]
    options: BuildOptions
    flavour: Flavour
    version: str
    """Version of TensorRT."""
    machine: Machine

    def to_json(self) -> dict[str, Any]:
        """Return the JSON-compatible values that the digest is computed from."""
        return {"format": FORMAT, **json.loads(json.dumps(asdict(self)))}

    @property
    def digest(self) -> str:
        """SHA-256 of all fields and the format version, in hexadecimal."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()


def engine_key(
    graph: bytes,
    stage: Stage,
    config: CascadeConfig,
    *,
    flavour: Flavour,
    precision: Precision,
    options: BuildOptions,
    machine: Machine,
) -> EngineKey:
    """Return the key of the engine that this version of cascade-rt compiles from a graph with the installed TensorRT.

    Args:
        graph: Content of the ONNX file.
        stage: The stage that the graph implements.
        config: Configuration of the cascade, which determines the shapes.
        flavour: TensorRT or TensorRT-RTX.
        precision: The precision of the graph.
        options: Options of the builder.
        machine: The machine that the engine is for.

    Raises:
        BackendUnavailableError: TensorRT is not installed, cannot be loaded, or is too old.
    """
    return EngineKey(
        stage=stage,
        onnx_sha256=hashlib.sha256(graph).hexdigest(),
        precision=precision,
        profiles=shape_profiles(stage, config),
        options=options,
        flavour=flavour,
        version=import_tensorrt(flavour).__version__,
        machine=machine,
    )


@dataclass(frozen=True, slots=True)
class CachedEngine:
    """A plan as it was stored, and the facts stored with it."""

    plan: bytes
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Miss:
    """A cache miss: there is no usable plan."""

    reason: str
    """The reason, in one sentence."""


class EngineCache:
    """A folder of plans.

    Args:
        folder: Path of the folder, or None for `default_cache_folder()`. It is created if it does not exist.

    Raises:
        OutputError: The folder cannot be created, or another user could write to it.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = default_cache_folder() if folder is None else folder
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = self.folder.stat()
        except OSError as error:
            raise OutputError(
                f"{self.folder}: cannot store compiled engines ({error.strerror}); "
                f"choose another folder with {CACHE_VARIABLE}"
            ) from error
        if doubt := _doubt(status):
            raise OutputError(
                f"{self.folder}: {doubt}, so compiled engines are not stored there; run: chmod go-w {self.folder}, "
                f"or choose a private folder with {CACHE_VARIABLE}"
            )

    def load(self, key: EngineKey) -> CachedEngine | Miss:
        """Read a plan if it exists, is intact, and was built for exactly this key.

        Never raises because of the contents of the folder. Any defect of an entry becomes the reason of the `Miss`, and
        storing a plan under the same key replaces the entry.
        """
        entry = self.folder / key.digest
        try:
            facts = json.loads(_read_trusted(entry / FACTS_NAME, MAX_FACTS_BYTES))
            plan = _read_trusted(entry / PLAN_NAME)
        except FileNotFoundError:
            return Miss(f"no engine for {key.stage} has been compiled on this machine with these versions and options")
        except (OSError, ValueError, RecursionError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            return Miss(f"{entry}: the compiled engine is not used ({reason})")
        if not isinstance(facts, dict) or facts.get("key") != key.to_json():
            return Miss(f"{entry}: the compiled engine is not used (it was built for something else)")
        if facts.get("plan_sha256") != hashlib.sha256(plan).hexdigest():
            return Miss(f"{entry}: the compiled engine is not used (it has changed since it was written)")
        return CachedEngine(plan, facts.get("facts", {}))

    def store(self, key: EngineKey, plan: bytes, facts: Mapping[str, Any]) -> None:
        """Store a plan atomically, replacing any existing entry.

        Raises:
            OutputError: The folder cannot be written.
        """
        document = {"key": key.to_json(), "plan_sha256": hashlib.sha256(plan).hexdigest(), "facts": dict(facts)}
        with self._draft() as draft:
            write_bytes(draft / PLAN_NAME, plan, overwrite=False)
            write_bytes(draft / FACTS_NAME, json.dumps(document, indent=1).encode(), overwrite=False)
            for name in (PLAN_NAME, FACTS_NAME):
                (draft / name).chmod(0o600)
            _publish(draft, self.folder / key.digest)

    @contextlib.contextmanager
    def building(self, key: EngineKey) -> Iterator[None]:
        """Admit one process at a time, because workers on a new machine would all compile the same engine at once.

        A process that had to wait then finds the plan with `load`. If the operating system or the file system does not
        support locks, no process waits and all of them compile.

        Raises:
            OutputError: The folder cannot be written.
        """
        try:
            descriptor = os.open(self.folder / f"{key.digest}.lock", _LOCK_FLAGS, 0o600)
        except OSError as error:
            raise self._not_kept(error) from error
        with os.fdopen(descriptor, "wb") as file:
            what = f"the engine for {key.stage} in {key.precision} on {key.machine.gpu}"
            _wait_for_lock(file.fileno(), what, self.folder)
            yield

    def load_timings(self, key: EngineKey) -> bytes:
        """Return TensorRT's timing cache from the last compilation on this machine, or empty if there is none."""
        try:
            return _read_trusted(self._timings(key))
        except (OSError, ValueError):
            return b""

    def store_timings(self, key: EngineKey, timings: bytes) -> None:
        """Store TensorRT's timing cache for the next compilation."""
        path = self._timings(key)
        write_bytes(path, timings, overwrite=True)
        path.chmod(0o600)

    def _timings(self, key: EngineKey) -> Path:
        plain = replace(key, stage="stage1", onnx_sha256="", precision="fp32", profiles=(), options=BuildOptions())
        return self.folder / f"{plain.digest}.timing"

    @contextlib.contextmanager
    def _draft(self) -> Iterator[Path]:
        """Create a temporary folder next to the entries and remove it at the end, unless it was renamed."""
        draft = self.folder / f".{secrets.token_hex(8)}.tmp"
        try:
            draft.mkdir(mode=0o700)
            yield draft
        except OSError as error:
            raise self._not_kept(error) from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def _not_kept(self, error: OSError) -> OutputError:
        return OutputError(
            f"{self.folder}: cannot store a compiled engine ({error.strerror}); "
            f"choose another folder with {CACHE_VARIABLE}"
        )


def default_cache_folder() -> Path:
    """Return the folder in `CASCADE_RT_CACHE` or, if unset, `cascade-rt/engines` in the system's cache folder."""
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen)
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        shared = os.environ.get("XDG_CACHE_HOME", "")
        # The XDG specification says to ignore relative paths.
        base = Path(shared) if os.path.isabs(shared) else Path.home() / ".cache"
    return base / "cascade-rt" / "engines"


def _wait_for_lock(descriptor: int, what: str, folder: Path) -> None:
    """Lock an open file, logging while waiting. Closing the file releases the lock."""
    start = time.monotonic()
    said = -math.inf
    while True:
        try:
            try_lock(descriptor)
        except BlockingIOError:
            waited = time.monotonic() - start
            if waited - said >= _SECONDS_BETWEEN_LINES:
                said = waited
                sentence = "waiting for another process to compile %s into %s (%.0f s so far)"
                _log.info(sentence, what, folder, waited)
            time.sleep(_SECONDS_BETWEEN_TRIES)
        else:
            return


def _publish(draft: Path, entry: Path) -> None:
    """Rename a finished folder to its final name. If another process was faster, its entry is as good as ours."""
    with contextlib.suppress(FileNotFoundError):
        os.rename(entry, draft / "replaced")
    try:
        os.rename(draft, entry)
    except OSError as error:
        # The faster entry may just now be moved aside by a third process, which then publishes its own.
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) and not entry.is_dir():
            raise
    shutil.rmtree(entry / "replaced", ignore_errors=True)


def _read_trusted(path: Path, most: int = sys.maxsize - 1) -> bytes:
    """Read a file that no other user could have written.

    Owner and mode are taken from the open descriptor, so the file cannot be swapped between the check and the read.

    Raises:
        FileNotFoundError: The file does not exist.
        OSError: The file cannot be read.
        ValueError: It is not a regular file, another user could have written it, or it is larger than `most` bytes.
    """
    try:
        file = open_plain_file(path)
    except NotAPlainFileError as error:
        raise ValueError(f"{path.name} {error}") from error
    with file:
        status = os.fstat(file.fileno())
        if doubt := _doubt(status):
            raise ValueError(f"{path.name} {doubt}")
        if status.st_size > most:
            raise ValueError(f"{path.name} is larger than {most} bytes")
        return file.read()


_LOCK_FLAGS = os.O_WRONLY | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)


def _doubt(status: os.stat_result) -> str:
    """Return why another user could have written a file or folder.

    Returns:
        The reason, or empty if no other user could or if the system does not tell.
    """
    if not hasattr(os, "getuid"):
        return ""
    if status.st_uid != os.getuid():
        return "belongs to another user"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return "can be written by other users"
    return ""
