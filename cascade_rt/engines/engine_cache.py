"""Compiled engines, kept where only their owner can write, and read only if nothing about them has changed.

A plan is a program for one GPU and one version of TensorRT, and loading one runs it. So plans are never part of a
bundle (docs/decisions/0012): they are compiled on the machine that uses them, and kept here.

    FOLDER/<key>/engine.plan    what TensorRT compiled
    FOLDER/<key>/engine.json    all that the key is made of, the SHA-256 of the plan, what is known about the engine
    FOLDER/<key>.timing         what TensorRT measured while compiling; the key leaves the graph out
    FOLDER/<key>.lock           held by who is compiling it

This is in the library, not in the export package, because the runtime loads plans without being able to compile any.
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
from cascade_rt.common.tensors import Precision, Stage
from cascade_rt.config import CascadeConfig
from cascade_rt.engines.nvidia import Gpu
from cascade_rt.engines.shape_profiles import ShapeProfile, shape_profiles
from cascade_rt.engines.tensorrt_api import Flavour, import_tensorrt
from cascade_rt.errors import OutputError

CACHE_VARIABLE = "CASCADE_RT_CACHE"
"""Environment variable that names another folder."""
FORMAT = 1
"""Version of what is stored; entries of another are not found."""
PLAN_NAME = "engine.plan"
FACTS_NAME = "engine.json"
MAX_FACTS_BYTES = 1 << 24
_SECONDS_BETWEEN_TRIES = 0.2
_SECONDS_BETWEEN_LINES = 25.0
"""Of the log, while another process compiles."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """What may be asked of the builder; a plan built with others is another plan."""

    workspace_bytes: int | None = None
    """Most memory that a kernel may use beside its inputs and outputs; None: all of the GPU's."""
    optimization_level: int = 3
    """How long TensorRT searches for fast kernels: 0 (not at all) to 5 (hours)."""
    compute_capability: str | None = None
    """The GPU that TensorRT-RTX builds for, such as `8.9`; None: every GPU it knows. Nothing for TensorRT, which builds
    for the GPU that is there."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What a plan is bound to on the machine it runs on."""

    gpu: str
    """Name of the GPU."""
    compute_capability: str
    """Its generation, such as `9.0`."""
    driver: str
    """Version of the driver; where it is not known, the newest CUDA that it runs."""

    @classmethod
    def of_gpu(cls, gpu: Gpu) -> Self:
        """The machine of a GPU."""
        major, minor = gpu.compute_capability
        return cls(gpu.name, f"{major}.{minor}", gpu.driver or f"CUDA {gpu.cuda}")


@dataclass(frozen=True, slots=True)
class EngineKey:
    """All that a plan depends on; a plan is used only where every field is the same."""

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
        """Plain values, all that the digest is made of."""
        return {"format": FORMAT, **json.loads(json.dumps(asdict(self)))}

    @property
    def digest(self) -> str:
        """SHA-256 of all fields, in hexadecimal."""
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
    """The key of the engine that this version of cascade-rt compiles from a graph, with the TensorRT that is installed.

    Args:
        graph: Content of the ONNX file.
        stage: The stage it is of.
        config: The cascade it is of, which decides the shapes.
        flavour: Which TensorRT.
        precision: The precision of the graph.
        options: What the builder is asked for.
        machine: The machine it is for.

    Raises:
        BackendUnavailableError: TensorRT is not installed, or is too old.
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
    """A plan as it was stored, and what was known about it."""

    plan: bytes
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Miss:
    """There is no plan to use."""

    reason: str
    """Why, in one sentence."""


class EngineCache:
    """A folder of plans.

    Args:
        folder: Where it is; None: `default_cache_folder()`. It is made if it is not there.

    Raises:
        OutputError: The folder cannot be made, or somebody else could write to it.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = default_cache_folder() if folder is None else folder
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = self.folder.stat()
        except OSError as error:
            raise OutputError(
                f"{self.folder}: cannot hold compiled engines ({error.strerror}); "
                f"name another folder in {CACHE_VARIABLE}"
            ) from error
        if doubt := _doubt(status):
            raise OutputError(
                f"{self.folder}: {doubt}, so compiled engines are not kept there; run: chmod go-w {self.folder}, "
                f"or name a folder of your own in {CACHE_VARIABLE}"
            )

    def load(self, key: EngineKey) -> CachedEngine | Miss:
        """Read a plan, if it is there, is whole, and was made for exactly this key.

        Never raises for what it finds in the folder: whatever is wrong with an entry is the reason of the `Miss`, and
        storing a plan under the key replaces it.
        """
        entry = self.folder / key.digest
        try:
            facts = json.loads(_read_trusted(entry / FACTS_NAME, MAX_FACTS_BYTES))
            plan = _read_trusted(entry / PLAN_NAME)
        except FileNotFoundError:
            return Miss(f"no engine for {key.stage} was compiled yet on this machine with these versions and options")
        except (OSError, ValueError, RecursionError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            return Miss(f"{entry}: the compiled engine is not used ({reason})")
        if not isinstance(facts, dict) or facts.get("key") != key.to_json():
            return Miss(f"{entry}: the compiled engine is not used (it was made for something else)")
        if facts.get("plan_sha256") != hashlib.sha256(plan).hexdigest():
            return Miss(f"{entry}: the compiled engine is not used (it is not the one that was written)")
        return CachedEngine(plan, facts.get("facts", {}))

    def store(self, key: EngineKey, plan: bytes, facts: Mapping[str, Any]) -> None:
        """Put a plan in its place in one step, over whatever is there.

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
        """Let one process after the other in: workers on a new machine would all compile the same engine at once.

        Whoever had to wait finds the plan with `load`. Where the system or the folder's file system has no locks nobody
        waits, and all compile.

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
        """What TensorRT measured when it last compiled something on this machine; empty: nothing yet."""
        try:
            return _read_trusted(self._timings(key))
        except (OSError, ValueError):
            return b""

    def store_timings(self, key: EngineKey, timings: bytes) -> None:
        """Keep what TensorRT measured, for the next time."""
        path = self._timings(key)
        write_bytes(path, timings, overwrite=True)
        path.chmod(0o600)

    def _timings(self, key: EngineKey) -> Path:
        plain = replace(key, stage="stage1", onnx_sha256="", precision="fp32", profiles=(), options=BuildOptions())
        return self.folder / f"{plain.digest}.timing"

    @contextlib.contextmanager
    def _draft(self) -> Iterator[Path]:
        """A new folder beside the entries, removed in the end unless it was renamed."""
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
            f"{self.folder}: a compiled engine cannot be kept ({error.strerror}); "
            f"name another folder in {CACHE_VARIABLE}"
        )


def default_cache_folder() -> Path:
    """Where engines are kept: the folder in `CASCADE_RT_CACHE`, or `cascade-rt` where the system keeps caches."""
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen)
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        shared = os.environ.get("XDG_CACHE_HOME", "")
        # The specification has relative paths ignored.
        base = Path(shared) if os.path.isabs(shared) else Path.home() / ".cache"
    return base / "cascade-rt" / "engines"


def _wait_for_lock(descriptor: int, what: str, folder: Path) -> None:
    """Take the lock of an open file, which closing it gives back; says in the log what is waited for."""
    try:
        import fcntl
    except ModuleNotFoundError:  # Windows
        return
    # Not every network file system has locks.
    start = time.monotonic()
    said = -math.inf
    with contextlib.suppress(OSError):
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waited = time.monotonic() - start
                if waited - said >= _SECONDS_BETWEEN_LINES:
                    said = waited
                    sentence = "waiting for another process, which compiles %s into %s (%.0f s so far)"
                    _log.info(sentence, what, folder, waited)
                time.sleep(_SECONDS_BETWEEN_TRIES)
            else:
                return


def _publish(draft: Path, entry: Path) -> None:
    """Rename a finished folder to its name; where another process was faster, its entry is as good as ours."""
    with contextlib.suppress(FileNotFoundError):
        os.rename(entry, draft / "replaced")
    try:
        os.rename(draft, entry)
    except OSError as error:
        # Whoever was faster may be moved aside by a third process right now, which then puts its own entry there.
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) and not entry.is_dir():
            raise
    shutil.rmtree(entry / "replaced", ignore_errors=True)


def _read_trusted(path: Path, most: int = sys.maxsize - 1) -> bytes:
    """Read a file that nobody else could have written.

    Owner and mode are those of the opened file, so it cannot be exchanged between the look and the reading.

    Raises:
        FileNotFoundError: It is not there.
        OSError: It cannot be read.
        ValueError: It is no plain file, somebody else could have written it, or it is larger than `most` bytes.
    """
    descriptor = os.open(path, _OPEN_FLAGS)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{path.name} is not a file")
        if doubt := _doubt(status):
            raise ValueError(f"{path.name} {doubt}")
        if status.st_size > most:
            raise ValueError(f"{path.name} is larger than {most} bytes")
        return file.read()


# A link is not followed, and a pipe is not waited for; Windows has neither flag, and needs to be told not to translate.
_OPEN_FLAGS = os.O_RDONLY
for _flag in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"):
    _OPEN_FLAGS |= getattr(os, _flag, 0)

_LOCK_FLAGS = os.O_WRONLY | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)


def _doubt(status: os.stat_result) -> str:
    """Why somebody else could have written a file or folder; empty: nobody could, or the system does not tell."""
    if not hasattr(os, "getuid"):
        return ""
    if status.st_uid != os.getuid():
        return "belongs to another user"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return "can be written by other users"
    return ""
