"""Compiled engines are found by exactly what they were made for, and read only if nobody else could write them."""

import errno
import json
import logging
import logging.handlers
import os
import queue
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cascade_rt.config import CascadeConfig
from cascade_rt.engines.engine_cache import (
    CACHE_VARIABLE,
    FACTS_NAME,
    PLAN_NAME,
    BuildOptions,
    CachedEngine,
    EngineCache,
    EngineKey,
    Machine,
    Miss,
    default_cache_folder,
)
from cascade_rt.engines.nvidia import Gpu
from cascade_rt.engines.shape_profiles import shape_profiles
from cascade_rt.errors import OutputError

KEY = EngineKey(
    stage="stage1",
    onnx_sha256="a" * 64,
    precision="fp16",
    profiles=shape_profiles("stage1", CascadeConfig()),
    options=BuildOptions(),
    flavour="tensorrt",
    version="11.4.0.106",
    machine=Machine("NVIDIA H200", "9.0", "610.10", 132),
)
OTHERS = {
    "stage": "stage2",
    "onnx_sha256": "b" * 64,
    "precision": "fp32",
    "profiles": shape_profiles("stage2", CascadeConfig()),
    "options": BuildOptions(optimization_level=5),
    "flavour": "tensorrt_rtx",
    "version": "11.3.0.99",
    "machine": replace(KEY.machine, driver="610.11"),
}
PLAN = bytes(range(256)) * 4

needs_owners = pytest.mark.skipif(not hasattr(os, "getuid"), reason="the system does not tell whose files are")


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path / "engines")


@pytest.fixture
def entry(cache: EngineCache) -> Path:
    """The folder of a stored engine."""
    cache.store(KEY, PLAN, {"share": 1.0})
    return cache.folder / KEY.digest


def reason(cache: EngineCache, key: EngineKey = KEY) -> str:
    found = cache.load(key)
    assert isinstance(found, Miss)
    return found.reason


def test_workers_on_a_new_machine_compile_an_engine_once(cache: EngineCache) -> None:
    compiled = []
    together = threading.Barrier(4)

    def work(_: int) -> CachedEngine | Miss:
        assert isinstance(cache.load(KEY), Miss)
        together.wait()
        with cache.building(KEY):
            if isinstance(cache.load(KEY), Miss):
                compiled.append(KEY)
                cache.store(KEY, PLAN, {})
        return cache.load(KEY)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(work, range(4)))
    assert compiled == [KEY]
    assert found == [CachedEngine(PLAN, {})] * 4


def test_equal_gpus_of_a_machine_share_their_engines() -> None:
    first = Gpu("NVIDIA H200", (9, 0), 150 << 30, "610.10", "13.1", multiprocessors=132, index=0)
    second = replace(first, index=1, memory_bytes=first.memory_bytes - 1)
    assert Machine.of_gpu(first) == Machine.of_gpu(second)


@pytest.mark.parametrize(
    "difference", [{"name": "NVIDIA L4"}, {"compute_capability": (8, 9)}, {"multiprocessors": 58}], ids=str
)
def test_gpus_of_different_models_have_engines_of_their_own(difference: dict[str, object]) -> None:
    gpu = Gpu("NVIDIA H200", (9, 0), 150 << 30, "610.10", "13.1", multiprocessors=132)
    other = replace(gpu, index=1, **difference)
    keys = {replace(KEY, machine=Machine.of_gpu(each)).digest for each in (gpu, other)}
    assert len(keys) == 2


def test_who_waits_for_another_process_says_so_again_and_again(
    cache: EngineCache, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("fcntl")
    monkeypatch.setattr("cascade_rt.engines.engine_cache._SECONDS_BETWEEN_LINES", 0.0)
    said: queue.Queue[logging.LogRecord] = queue.Queue()
    log = logging.getLogger("cascade_rt.engines.engine_cache")
    handler = logging.handlers.QueueHandler(said)
    monkeypatch.setattr(log, "handlers", [handler])
    caplog.set_level(logging.INFO, logger=log.name)

    def wait() -> None:
        with cache.building(KEY):
            pass

    with ThreadPoolExecutor(1) as pool:
        with cache.building(KEY):
            waiting = pool.submit(wait)
            lines = [said.get(timeout=60).getMessage() for _ in range(3)]
        waiting.result(timeout=60)
    what = "the engine for stage1 in fp16 on NVIDIA H200"
    expected = f"waiting for another process to compile {what} into {cache.folder}"
    assert [line.partition(" (")[0] for line in lines] == [expected] * 3


def test_who_waits_for_nobody_says_nothing(cache: EngineCache, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="cascade_rt")
    with cache.building(KEY):
        assert caplog.records == []


def test_a_file_system_without_locks_keeps_nobody_out(cache: EngineCache, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = pytest.importorskip("fcntl")

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with cache.building(KEY), cache.building(KEY):
        cache.store(KEY, PLAN, {})
    assert cache.load(KEY) == CachedEngine(PLAN, {})


def test_what_was_stored_is_found(cache: EngineCache, entry: Path) -> None:
    assert cache.load(KEY) == CachedEngine(PLAN, {"share": 1.0})


def test_an_empty_cache_says_that_nothing_was_compiled_yet(cache: EngineCache) -> None:
    assert "no engine for stage1 has been compiled" in reason(cache)


def test_every_field_of_the_key_is_tried() -> None:
    assert set(OTHERS) == {field.name for field in fields(EngineKey)}


@pytest.mark.parametrize("name", OTHERS)
def test_an_engine_built_for_anything_else_is_not_found(cache: EngineCache, entry: Path, name: str) -> None:
    assert "no engine" in reason(cache, replace(KEY, **{name: OTHERS[name]}))


def test_an_entry_renamed_to_another_key_is_not_used(cache: EngineCache, entry: Path) -> None:
    other = replace(KEY, version="11.3.0.99")
    entry.rename(cache.folder / other.digest)
    assert "built for something else" in reason(cache, other)


@settings(max_examples=20)
@given(st.integers(0, len(PLAN) - 1), st.integers(1, 255))
def test_a_changed_plan_is_not_used(tmp_path_factory: pytest.TempPathFactory, position: int, change: int) -> None:
    cache = EngineCache(tmp_path_factory.mktemp("engines"))
    cache.store(KEY, PLAN, {})
    changed = bytearray(PLAN)
    changed[position] ^= change
    (cache.folder / KEY.digest / PLAN_NAME).write_bytes(changed)
    assert "it has changed since it was written" in reason(cache)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]", b"null", b"{}", b"[" * 100_000])
def test_facts_that_make_no_sense_are_a_miss(cache: EngineCache, entry: Path, content: bytes) -> None:
    (entry / FACTS_NAME).write_bytes(content)
    assert "the compiled engine is not used" in reason(cache)


def test_a_plan_that_is_gone_is_a_miss(cache: EngineCache, entry: Path) -> None:
    (entry / PLAN_NAME).unlink()
    assert isinstance(cache.load(KEY), Miss)


@needs_owners
@pytest.mark.parametrize("name", [PLAN_NAME, FACTS_NAME])
def test_a_file_that_others_can_write_is_not_used(cache: EngineCache, entry: Path, name: str) -> None:
    (entry / name).chmod(0o620)
    assert f"{name} can be written by other users" in reason(cache)


@needs_owners
def test_a_plan_of_another_user_is_not_used(cache: EngineCache, entry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: entry.stat().st_uid + 1)
    assert "belongs to another user" in reason(cache)


@needs_owners
@pytest.mark.parametrize("name", [PLAN_NAME, FACTS_NAME])
def test_a_link_is_not_followed(cache: EngineCache, entry: Path, name: str) -> None:
    (entry / name).rename(entry / "elsewhere")
    (entry / name).symlink_to(entry / "elsewhere")
    assert "not used" in reason(cache)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_pipe_is_not_waited_for(cache: EngineCache, entry: Path) -> None:
    (entry / PLAN_NAME).unlink()
    os.mkfifo(entry / PLAN_NAME, 0o600)
    assert "is a pipe or a device, not a regular file" in reason(cache)


def test_storing_again_replaces_what_was_there(cache: EngineCache, entry: Path) -> None:
    (entry / FACTS_NAME).write_bytes(b"{")
    cache.store(KEY, b"newer", {})
    assert cache.load(KEY) == CachedEngine(b"newer", {})


def test_storing_over_a_file_of_that_name_works(cache: EngineCache) -> None:
    (cache.folder / KEY.digest).write_bytes(b"in the way")
    cache.store(KEY, PLAN, {})
    assert isinstance(cache.load(KEY), CachedEngine)


def test_several_that_store_at_once_leave_one_whole_entry(cache: EngineCache) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: cache.store(KEY, bytes([number]) * 1000, {"number": number}), range(40)))
    found = cache.load(KEY)
    assert isinstance(found, CachedEngine)
    assert found.plan == bytes([found.facts["number"]]) * 1000
    assert [path.name for path in cache.folder.iterdir()] == [KEY.digest]


def test_nothing_but_the_entry_is_left_behind(cache: EngineCache, entry: Path) -> None:
    cache.store(KEY, PLAN, {})
    assert list(cache.folder.iterdir()) == [entry]
    assert sorted(path.name for path in entry.iterdir()) == [FACTS_NAME, PLAN_NAME]


@needs_owners
def test_entries_are_for_their_owner_only(cache: EngineCache, entry: Path) -> None:
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (entry / PLAN_NAME, entry / FACTS_NAME)}
    assert modes == {0o600}
    assert stat.S_IMODE(entry.stat().st_mode) & 0o077 == 0


def test_facts_can_be_read_without_cascade_rt(entry: Path) -> None:
    document = json.loads((entry / FACTS_NAME).read_text())
    assert document["key"]["machine"] == {
        "gpu": "NVIDIA H200",
        "compute_capability": "9.0",
        "driver": "610.10",
        "multiprocessors": 132,
    }


@needs_owners
@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_a_folder_that_others_can_write_is_refused(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)
    with pytest.raises(OutputError, match="can be written by other users, so compiled engines are not stored there"):
        EngineCache(tmp_path)


@needs_owners
def test_a_folder_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(OutputError, match="belongs to another user"):
        EngineCache(tmp_path)


def test_a_file_in_place_of_the_folder_is_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "engines").touch()
    with pytest.raises(OutputError, match=f"choose another folder with {CACHE_VARIABLE}"):
        EngineCache(tmp_path / "engines")


def test_timings_are_shared_by_graphs_and_options_but_not_by_machines(cache: EngineCache) -> None:
    cache.store_timings(KEY, b"measured")
    assert (
        cache.load_timings(replace(KEY, stage="stage2", onnx_sha256="c", options=BuildOptions(1 << 30))) == b"measured"
    )
    assert cache.load_timings(replace(KEY, machine=OTHERS["machine"])) == b""


def test_the_environment_names_the_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    assert default_cache_folder() == tmp_path


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {}, "HOME/.cache/cascade-rt/engines"),
        ("linux", {"XDG_CACHE_HOME": "HOME/x"}, "HOME/x/cascade-rt/engines"),
        ("linux", {"XDG_CACHE_HOME": "relative"}, "HOME/.cache/cascade-rt/engines"),
        ("darwin", {}, "HOME/Library/Caches/cascade-rt/engines"),
        ("win32", {"LOCALAPPDATA": "HOME/local"}, "HOME/local/cascade-rt/engines"),
        ("win32", {}, "HOME/AppData/Local/cascade-rt/engines"),
    ],
)
def test_the_default_is_where_the_system_keeps_caches(
    platform: str, variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in (CACHE_VARIABLE, "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", platform)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    for name, value in variables.items():
        monkeypatch.setenv(name, value.replace("HOME", str(tmp_path)))
    assert default_cache_folder() == Path(expected.replace("HOME", str(tmp_path)))
