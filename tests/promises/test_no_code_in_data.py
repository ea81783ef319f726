"""Nothing that a user can be handed runs: no pickle, no evaluated text, no archive that unpacks itself."""

import ast
import io
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from cascade_rt_cli.main import main

ROOT = Path(__file__).parents[2]
PACKAGES = ("cascade_rt", "export/cascade_rt_export", "cli/cascade_rt_cli")
SOURCES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]

FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "joblib", "cloudpickle", "marshal", "shelve", "yaml", "tarfile"}
FORBIDDEN_NAMES = {"eval", "exec", "__import__"}
FORBIDDEN_CALLS = {
    *("torch.load", "torch.jit.load", "torch.hub.load", "torch.package.PackageImporter"),
    *("shutil.unpack_archive", "extractall", "os.system", "os.popen"),
    *("yaml.load", "pickle.load", "pickle.loads", "onnx.hub.load", "subprocess.getoutput"),
}


def dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def offences(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (name.name for name in names if name.name.partition(".")[0] in FORBIDDEN_MODULES)
            case ast.ImportFrom(module=str(module)) if module.partition(".")[0] in FORBIDDEN_MODULES:
                yield module
            case ast.Call(func=ast.Name(id=name)) if name in FORBIDDEN_NAMES:
                yield name
            case ast.Call(func=ast.Attribute(attr="load", value=ast.Name(id="np" | "numpy")), keywords=options):
                # NumPy's own default could change, and has.
                if "allow_pickle=False" not in map(ast.unparse, options):
                    yield "np.load without allow_pickle=False"
            case ast.Call(func=ast.Attribute() as function):
                name = dotted(function)
                if name in FORBIDDEN_CALLS or function.attr in FORBIDDEN_CALLS:
                    yield name
            case ast.keyword(arg="shell", value=ast.Constant(value=True)):
                yield "shell=True"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_module_can_run_what_it_reads(path: Path) -> None:
    assert list(offences(ast.parse(path.read_text(encoding="utf-8")))) == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from pickle import loads",
        "import yaml",
        "eval('1')",
        "torch.load(path)",
        "np.load(path, allow_pickle=True)",
        "archive.extractall()",
        "subprocess.run('ls', shell=True)",
    ],
)
def test_the_search_finds_what_it_looks_for(code: str) -> None:
    assert list(offences(ast.parse(code)))


class Trap:
    """Springs when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return (Path.touch, (self.mark,))


def pickled(trap: Trap) -> bytes:
    return pickle.dumps(trap)


def as_torch_saves_it(trap: Trap) -> bytes:
    file = io.BytesIO()
    torch.save({"model": trap}, file)
    return file.getvalue()


def in_a_zip(trap: Trap) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("data.pkl", pickle.dumps(trap))
    return file.getvalue()


@pytest.mark.parametrize("content", [pickled, as_torch_saves_it, in_a_zip], ids=lambda make: make.__name__)
@pytest.mark.parametrize("name", ["checkpoint.safetensors", "model.pt", "best.pth"])
def test_a_pickle_is_refused_with_a_sentence_under_any_name(tmp_path: Path, name: str, content: object) -> None:
    mark = tmp_path / "sprung"
    (tmp_path / name).write_bytes(content(Trap(mark)))  # type: ignore[operator]
    done = CliRunner().invoke(main, ["export", str(tmp_path / name), "-o", str(tmp_path / "bundle")])
    assert (done.exit_code, f"{name}: is not a safetensors file" in done.stderr) == (5, True)
    assert not mark.exists()
    assert not (tmp_path / "bundle").exists()


def test_the_trap_would_spring(tmp_path: Path) -> None:
    pickle.loads(pickled(Trap(tmp_path / "sprung")))
    assert (tmp_path / "sprung").exists()
