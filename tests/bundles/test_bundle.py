"""A bundle is read whole or refused."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnx
import pytest

from cascade_rt.bundles.bundle import (
    DEFAULT_EMBEDDED,
    EMBEDDED_NAMES,
    Bundle,
    EmbeddedName,
    default_bundle_path,
    embedded_bundle_path,
    find_bundle,
    read_bundle,
    record_files,
)
from cascade_rt.bundles.files import FILE_NAMES, HALF_FILE_NAMES, MAX_MANIFEST_BYTES
from cascade_rt.errors import BundleError
from cascade_rt.run.cascade import open_cascade


@pytest.fixture
def copy(bundle: Bundle, tmp_path: Path) -> Path:
    """A bundle that a test may damage."""
    return Path(shutil.copytree(bundle.path, tmp_path / "bundle"))


def edit_manifest(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads((path / "manifest.json").read_text())
    change(document)
    (path / "manifest.json").write_text(json.dumps(document))


def test_what_was_written_is_read_back(bundle: Bundle) -> None:
    again = read_bundle(bundle.path)
    assert again.manifest == bundle.manifest
    assert again.sha256 == bundle.sha256


def test_a_bundle_holds_the_files_of_its_manifest_and_no_other(bundle: Bundle) -> None:
    assert {path.name for path in bundle.path.iterdir()} == FILE_NAMES | HALF_FILE_NAMES | {"manifest.json"}


@pytest.mark.parametrize("name", sorted(FILE_NAMES | HALF_FILE_NAMES))
def test_a_changed_byte_in_any_file_is_refused(copy: Path, name: str) -> None:
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(BundleError, match=rf"{name}: is not the file that was exported"):
        read_bundle(copy)


@pytest.mark.parametrize("name", sorted(FILE_NAMES | HALF_FILE_NAMES))
def test_a_missing_file_is_refused(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(BundleError, match=f"{name}: is missing from the bundle"):
        read_bundle(copy)


def test_a_folder_without_manifest_is_not_a_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"is not a bundle .* cascade-rt export"):
        read_bundle(tmp_path)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda m: m.update(schema_version=2), "schema_version must be 3, got 2"),
        (lambda m: m.update(extra=1), r"unknown keys \['extra'\]"),
        (lambda m: m.pop("parity"), r"missing keys \['parity'\]"),
        (lambda m: m["config"].update(base_with=8), "unknown key config.base_with; did you mean 'base_width'"),
        (lambda m: m["files"].update({"weights.safetensors": {}}), "is missing the keys sha256, bytes"),
        (lambda m: m["config"].update(base_width="8"), "config.base_width must be of type int, got '8'"),
        (lambda m: m["labels"].update({"3": "cyst"}), "labels or tensors that this version"),
        (lambda m: m["tensors"]["stage1"]["inputs"][0].update(name="image"), "labels or tensors that this version"),
        (lambda m: m["files"].update({"../secret": {}}), "files must be"),
        (lambda m: m["files"]["stage1_fp32.onnx"].update(bytes="1"), "bytes must be of type int"),
        (lambda m: m["files"]["stage1_fp32.onnx"].update(bytes=(1 << 30) + 1), "bytes must be between 0 and"),
        (lambda m: m["files"]["golden.bin"].update(bytes=-1), "bytes must be between 0 and"),
        (lambda m: m["files"].update({"readme.md": {}}), "files must be"),
        (lambda m: m.update(intended_use=None), "intended_use must be a JSON string"),
        (lambda m: m.update(name="\x1b]0;owned\x07"), "has control characters"),
        (lambda m: m["parity"].update(limit=float("nan")), "contains NaN"),
    ],
)
def test_a_manifest_this_version_does_not_understand_is_refused(
    copy: Path, change: Callable[[dict[str, Any]], object], complaint: str
) -> None:
    edit_manifest(copy, change)
    with pytest.raises(BundleError, match=complaint) as caught:
        read_bundle(copy)
    assert caught.value.code == "E_MANIFEST"


def test_a_complaint_does_not_repeat_a_whole_manifest(copy: Path) -> None:
    edit_manifest(copy, lambda manifest: manifest.update(intended_use=["x" * 100_000]))
    with pytest.raises(BundleError) as caught:
        read_bundle(copy)
    assert len(str(caught.value)) < 1000


def test_a_key_that_stands_twice_is_refused(copy: Path) -> None:
    text = (copy / "manifest.json").read_text()
    (copy / "manifest.json").write_text(text.replace('"name":', '"name": "other", "name":', 1))
    with pytest.raises(BundleError, match="has the key 'name' twice"):
        read_bundle(copy)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe"])
def test_a_manifest_other_than_a_json_object_is_refused(copy: Path, content: bytes) -> None:
    (copy / "manifest.json").write_bytes(content)
    with pytest.raises(BundleError, match=r"manifest\.json: .*export the bundle again"):
        read_bundle(copy)


def test_a_huge_manifest_is_refused_unread(copy: Path) -> None:
    (copy / "manifest.json").write_bytes(b" " * (MAX_MANIFEST_BYTES + 1))
    with pytest.raises(BundleError, match="is larger than"):
        read_bundle(copy)


def rehash(path: Path) -> None:
    """Make a manifest fit the files beside it."""
    records = {name: asdict(record) for name, record in record_files(path).items()}
    edit_manifest(path, lambda manifest: manifest.update(files=records))


def test_one_half_precision_graph_without_the_other_is_refused(copy: Path) -> None:
    edit_manifest(copy, lambda manifest: manifest["files"].pop("stage2_fp16.onnx"))
    with pytest.raises(BundleError, match="files must be"):
        read_bundle(copy)


def test_a_bundle_without_half_precision_says_so_when_it_is_asked_for(copy: Path) -> None:
    for name in HALF_FILE_NAMES:
        (copy / name).unlink()
    rehash(copy)
    assert read_bundle(copy).precisions == ("fp32",)
    with pytest.raises(BundleError, match="has no fp16 graphs; export the bundle again with `require_half=True`"):
        open_cascade(copy, "onnxruntime", "fp16")


def test_a_graph_that_onnxruntime_cannot_read_is_refused(copy: Path) -> None:
    (copy / "stage1_fp32.onnx").write_bytes(b"no graph at all")
    rehash(copy)
    with pytest.raises(BundleError, match=r"stage1_fp32\.onnx: is not an ONNX graph"):
        open_cascade(copy, "onnxruntime")


def test_graphs_in_each_others_place_are_refused(copy: Path) -> None:
    first, second = copy / "stage1_fp32.onnx", copy / "stage2_fp32.onnx"
    first_content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(first_content)
    rehash(copy)
    with pytest.raises(BundleError, match="is not a stage1 graph"):
        open_cascade(copy, "onnxruntime")


def add_to_graph(path: Path, change: Callable[[onnx.ModelProto], object]) -> None:
    model = onnx.load(path)
    change(model)
    path.write_bytes(model.SerializeToString())


def test_a_graph_with_external_data_is_refused_before_any_engine_opens_it(copy: Path) -> None:
    def point_outside(model: onnx.ModelProto) -> None:
        onnx.external_data_helper.set_external_data(model.graph.initializer[0], "../../etc/passwd")

    add_to_graph(copy / "stage2_fp32.onnx", point_outside)
    rehash(copy)
    with pytest.raises(BundleError, match=r"stage2_fp32\.onnx: a tensor is stored in another file") as caught:
        read_bundle(copy)
    assert caught.value.code == "E_EXTERNAL_DATA"


def test_a_graph_with_an_operator_of_a_library_is_refused(copy: Path) -> None:
    add_to_graph(copy / "stage1_fp16.onnx", lambda model: setattr(model.graph.node[0], "domain", "com.evil"))
    rehash(copy)
    with pytest.raises(BundleError, match=r"stage1_fp16\.onnx: uses '\w+' of domain 'com\.evil'") as caught:
        read_bundle(copy)
    assert caught.value.code == "E_GRAPH"


@pytest.mark.parametrize("name", ["stage1_fp32.onnx", "weights.safetensors", "golden.bin", "manifest.json"])
def test_a_symbolic_link_is_refused(copy: Path, name: str) -> None:
    (copy / name).rename(copy.parent / name)
    (copy / name).symlink_to(copy.parent / name)
    with pytest.raises(BundleError, match=f"{name}: is a symbolic link"):
        read_bundle(copy)


def test_a_hard_link_is_read_as_package_managers_make_them(copy: Path) -> None:
    name = "stage1_fp32.onnx"
    (copy / name).rename(copy.parent / name)
    (copy / name).hardlink_to(copy.parent / name)
    read_bundle(copy)


def test_a_folder_of_bundles_may_be_a_symbolic_link(copy: Path) -> None:
    (copy.parent / "current").symlink_to(copy)
    read_bundle(copy.parent / "current")


def test_a_pipe_in_place_of_a_file_is_refused_and_not_waited_for(copy: Path) -> None:
    (copy / "weights.safetensors").unlink()
    os.mkfifo(copy / "weights.safetensors")
    with pytest.raises(BundleError, match="not a regular file"):
        read_bundle(copy)


def test_a_file_that_the_manifest_does_not_list_is_never_opened(copy: Path) -> None:
    os.mkfifo(copy / "stage3_fp32.onnx")
    (copy / "evil.py").write_text("raise SystemExit")
    read_bundle(copy)


@pytest.mark.parametrize("name", ["stage1_fp32.onnx", "weights.safetensors", "golden.bin"])
def test_a_file_exchanged_after_the_bundle_was_opened_is_refused(copy: Path, name: str) -> None:
    opened = read_bundle(copy)
    content = bytearray((copy / name).read_bytes())
    content[100] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(BundleError, match=f"{name}: is not the file that was exported"):
        {
            "stage1_fp32.onnx": opened.graph("stage1").read_bytes,
            "weights.safetensors": opened.weights.read_bytes,
            "golden.bin": opened.read_golden,
        }[name]()


def test_a_golden_case_that_holds_no_numbers_is_refused(copy: Path) -> None:
    content = (copy / "golden.bin").read_bytes()
    (copy / "golden.bin").write_bytes(b"\xff" * len(content))
    rehash(copy)
    with pytest.raises(BundleError, match=r"golden\.bin: contains NaN or infinity"):
        read_bundle(copy).read_golden()


def test_weights_larger_than_memory_are_refused_before_allocation(copy: Path) -> None:
    edit_manifest(copy, lambda manifest: manifest["config"].update(base_width=1 << 20))
    with pytest.raises(BundleError, match="its weights do not match its config"):
        open_cascade(copy, "pytorch")


def test_weights_of_another_network_are_refused(copy: Path) -> None:
    edit_manifest(copy, lambda manifest: manifest["config"].update(base_width=16))
    with pytest.raises(BundleError, match="its weights do not match its config"):
        open_cascade(copy, "pytorch")


def test_the_hash_of_a_bundle_changes_with_its_manifest(bundle: Bundle, copy: Path) -> None:
    edit_manifest(copy, lambda manifest: manifest.update(name="other"))
    assert read_bundle(copy).sha256 != bundle.sha256


@pytest.mark.parametrize("name", [DEFAULT_EMBEDDED, "phantom"])
def test_a_name_is_an_embedded_bundle(name: EmbeddedName) -> None:
    assert find_bundle(name) == embedded_bundle_path(name)
    with open_cascade(name, "onnxruntime") as cascade:
        assert cascade.bundle.path == embedded_bundle_path(name)


def test_no_name_is_the_default_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_bundle(None) == default_bundle_path() == embedded_bundle_path(DEFAULT_EMBEDDED)


@pytest.mark.parametrize("name", EMBEDDED_NAMES)
def test_a_bundle_in_the_working_folder_precedes_an_embedded_one(
    bundle: Bundle, name: EmbeddedName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    assert find_bundle(name) == embedded_bundle_path(name)
    shutil.copytree(bundle.path, tmp_path / name, dirs_exist_ok=True)
    assert find_bundle(name) == Path(name)


@pytest.mark.parametrize("folder", [Path("phantom"), "./phantom", "phantom/", "phantom_bundle", ""])
def test_a_folder_is_never_mistaken_for_a_name(
    folder: str | Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_bundle(folder) == Path(folder)


OPEN_IN_LITTLE_MEMORY = """
import resource, sys
from pathlib import Path
from cascade_rt.bundles.bundle import read_bundle
from cascade_rt.errors import BundleError
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20),) * 2)
try:
    read_bundle(Path(sys.argv[1]))
except BundleError as error:
    print(error.code, error)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the memory of a process cannot be limited here")
@pytest.mark.parametrize(
    ("size", "code"), [(1 << 30, "E_TOO_LARGE"), (None, "E_HASH")], ids=["as large as declared", "declared only"]
)
def test_a_graph_too_large_for_the_memory_is_one_sentence(size: int | None, code: str, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(embedded_bundle_path("phantom"), tmp_path / "bundle"))
    edit_manifest(copy, lambda document: document["files"]["stage1_fp32.onnx"].update(bytes=1 << 30))
    if size is not None:
        os.truncate(copy / "stage1_fp32.onnx", size)
    command = [sys.executable, "-c", OPEN_IN_LITTLE_MEMORY, str(copy)]
    run = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert run.stdout.startswith(f"{code} {copy / 'stage1_fp32.onnx'}: "), run.stderr
