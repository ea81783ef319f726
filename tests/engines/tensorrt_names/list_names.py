"""Write the public names of TensorRT's Python bindings to text files, without TensorRT.

    pip download --no-deps tensorrt_cu13_bindings==11.4.0.106
    python list_names.py tensorrt_cu13_bindings-*.whl

The libraries behind the bindings are not on the ordinary package index and need a GPU to do anything. The bindings
alone tell what they offer: they are loaded in front of empty libraries. Needs `cc` and `nm`. Classes of layers and of
plugins are left out; nothing here uses them.
"""

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

_LIST = """
import sys, tensorrt_bindings as trt
public = lambda owner: " ".join(name for name in sorted(dir(owner)) if name[0] != "_")
classes = {name: kind for name, kind in vars(trt).items() if isinstance(kind, type) and name[0] != "_"}
kept = sorted(name for name in classes if "Plugin" not in name and not name.endswith("Layer"))
with open(f"{sys.argv[1]}/tensorrt-{trt.__version__}.txt", "w") as file:
    print("TensorRT:", " ".join(kept), file=file)
    for name in kept:
        print(f"{name}:", public(classes[name]), file=file)
"""


def list_names(wheel: Path, folder: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        zipfile.ZipFile(wheel).extractall(scratch)
        library = f"{scratch}/tensorrt_bindings/tensorrt.so"
        listed = subprocess.run(["nm", "-D", "--undefined-only", library], capture_output=True, text=True, check=True)
        symbols = [line.split()[-1] for line in listed.stdout.splitlines() if " U " in line and "@" not in line]
        source = "".join(f"void {name}(void) {{}}\n" for name in symbols if not name.startswith(("Py", "_Py")))
        for name in ("nvinfer", "nvinfer_plugin", "nvonnxparser"):
            for major in (10, 11):
                target = f"{scratch}/lib{name}.so.{major}"
                command = ["cc", "-shared", "-fPIC", "-w", "-x", "c", "-", "-o", target]
                subprocess.run(command, input=source, text=True, check=True)
        environment = {**os.environ, "LD_LIBRARY_PATH": scratch, "PYTHONPATH": scratch}
        subprocess.run([sys.executable, "-c", _LIST, str(folder)], env=environment, check=True)


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        list_names(Path(argument), Path(__file__).parent)
