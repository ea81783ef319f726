"""Engines run the bytes that were hashed: none of them opens a file of a bundle by itself."""

import shutil
from pathlib import Path

import pytest

from cascade_rt.bundles.bundle import Bundle, read_bundle
from cascade_rt.bundles.files import BundleFile
from cascade_rt.engines import BACKENDS, GPU_BACKENDS, Backend, open_engine

HERE = [backend for backend in BACKENDS if backend not in GPU_BACKENDS]


@pytest.mark.parametrize("backend", HERE)
def test_engines_read_graphs_only_as_they_were_hashed(
    bundle: Bundle, backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each file has been read and hashed it is removed; an engine that needs it again finds nothing."""
    path = Path(shutil.copytree(bundle.path, tmp_path / "bundle"))
    opened = read_bundle(path)
    golden = opened.read_golden()
    read = BundleFile.read_bytes

    def read_and_remove(file: BundleFile) -> bytes:
        content = read(file)
        file.path.unlink()
        return content

    monkeypatch.setattr(BundleFile, "read_bytes", read_and_remove)
    engine = open_engine(opened, "stage2", backend)
    engine.run(golden["stage2"].inputs)
    engine.close()
    assert len(list(path.iterdir())) < len(list(bundle.path.iterdir()))


def test_no_engine_is_given_the_path_of_a_graph(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: BundleFile) -> str:
        raise AssertionError("an engine asked for the path of a file that it should be given as bytes")

    monkeypatch.setattr(BundleFile, "__fspath__", refuse)
    for backend in HERE:
        open_engine(bundle, "stage1", backend).close()
