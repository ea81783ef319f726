"""What is imported, and what is not: start-up stays cheap and the runtime needs no torch."""

import subprocess
import sys
from pathlib import Path

import pytest

import cascade_rt
import cascade_rt_export
from cascade_rt.bundles.bundle import Bundle
from cascade_rt_cli.main import COMMANDS

ROOT = Path(__file__).parents[2]
HEAVY = {
    "torch",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "openvino",
    "tensorrt",
    "tensorrt_rtx",
    "pycuda",
    "matplotlib",
    "monai",
    "highdicom",
}


def modules_after(code: str) -> set[str]:
    """Top-level packages that a fresh interpreter has loaded after running some code."""
    script = f"{code}\nimport sys\nprint('LOADED', *{{name.partition('.')[0] for name in sys.modules}})"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(run.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_imports_nothing_heavy(command: str) -> None:
    arguments = [*command.split(), "--help"]
    loaded = modules_after(
        f"from cascade_rt_cli.main import main\nmain({arguments!r}, prog_name='cascade-rt', standalone_mode=False)"
    )
    assert not loaded & (HEAVY | {"scipy", "nibabel", "PIL"})


@pytest.mark.parametrize("code", ["import cascade_rt; dir(cascade_rt)", "import cascade_rt_export"])
def test_importing_a_package_imports_nothing_but_itself(code: str) -> None:
    assert not modules_after(code) & (HEAVY | {"numpy", "nibabel", "scipy", "SimpleITK"})


def test_public_names_import_no_engine_and_no_training_but_train() -> None:
    names = ", ".join(name for name in cascade_rt.__all__ if name != "train")
    assert not modules_after(f"from cascade_rt import {names}") & (HEAVY | {"SimpleITK"})


def test_a_scan_from_an_array_imports_no_simpleitk() -> None:
    code = (
        "import numpy as np\nfrom cascade_rt.scans.inputs import scan_source\n"
        "with scan_source((np.zeros((4, 4, 4), np.int16), np.eye(4))): pass"
    )
    assert "SimpleITK" not in modules_after(code)


@pytest.mark.parametrize(
    "module",
    [
        "scans.volume",
        "run.cascade",
        "run.inference",
        "measuring.evaluation",
        "engines",
        "results.segmentation",
        "models.crop",
        "bundles.bundle",
        "engines.engine_cache",
        "engines.doctor",
    ],
)
def test_the_runtime_imports_no_engine_library(module: str) -> None:
    assert not modules_after(f"import cascade_rt.{module}") & HEAVY


def test_monai_waits_until_a_comparator_is_built() -> None:
    assert "monai" not in modules_after("import cascade_rt.models.comparators")


def test_the_gate_on_phantoms_needs_no_nibabel() -> None:
    assert "nibabel" not in modules_after(
        "from cascade_rt_export import gate\n"
        "from cascade_rt_export.calibration import phantom_calibration\n"
        "phantom_calibration((4, 64, 64))"
    )


def test_engines_of_tensorrt_are_compiled_without_pytorch() -> None:
    loaded = modules_after("import cascade_rt_export.plans, cascade_rt_cli.plans")
    assert "onnx" in loaded
    assert not loaded & {"torch", "onnxscript", "safetensors", "matplotlib"}


def test_infer_with_onnxruntime_never_imports_torch(bundle: Bundle, tmp_path: Path) -> None:
    loaded = modules_after(
        "import numpy as np, nibabel as nib\n"
        f"scan = {str(tmp_path / 'scan.nii.gz')!r}\n"
        "nib.save(nib.Nifti1Image(np.linspace(-900, 900, 64 * 64 * 2).reshape(64, 64, 2), np.eye(4)), scan)\n"
        "from cascade_rt_cli.main import main\n"
        f"main(['infer', scan, '--bundle', {str(bundle.path)!r}, '-o', {str(tmp_path)!r}, '--backend', 'onnxruntime'],"
        " standalone_mode=False)"
    )
    assert "onnxruntime" in loaded
    assert not loaded & {"torch", "onnx", "safetensors"}


def test_every_public_name_exists_and_is_listed_in_order() -> None:
    names = [name for name in cascade_rt.__all__ if name != "__version__"]
    assert names == sorted(names)
    assert [name for name in cascade_rt.__all__ if getattr(cascade_rt, name, None) is None] == []
    assert [name for name in cascade_rt_export.__all__ if getattr(cascade_rt_export, name, None) is None] == []


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Pancreas'"):
        _ = cascade_rt.Pancreas


@pytest.mark.parametrize("package", ["cascade_rt", "export/cascade_rt_export", "cli/cascade_rt_cli"])
def test_every_package_is_marked_as_typed(package: str) -> None:
    assert (ROOT / package / "py.typed").is_file()
