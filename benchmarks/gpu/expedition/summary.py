"""What an expedition found, as a table to read."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu.expedition.parts import PARTS
from cascade_rt.errors import UsageError

RESULTS = "results.jsonl"
Line = Mapping[str, Any]

_OF_EVERY_LINE = {
    *("kind", "date", "part", "name", "passed", "reason", "processor", "versions", "commit"),
    *("gpu", "compute_capability", "gpu_memory_bytes", "driver", "driver_cuda"),
}


def summary(folder: Path) -> str:
    """Lines of text: the machine, how each part ended, and what it measured.

    Raises:
        UsageError: The folder holds no results, or a line of them is not JSON.
    """
    lines = read_lines(folder / RESULTS)
    return "\n".join([*_machine(lines), *_parts(lines), *_measurements(lines)])


def read_lines(path: Path) -> list[Line]:
    """The lines of a file of results.

    Raises:
        UsageError: There is no such file, or a line is not JSON.
    """
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except OSError as error:
        raise UsageError(f"{path}: no results ({error.strerror}); name the folder of an expedition") from None
    except ValueError as error:
        raise UsageError(f"{path}: a line is not JSON ({error})") from None


def _machine(lines: Sequence[Line]) -> Iterator[str]:
    if lines:
        told = lines[0]
        versions = (f"{name} {version}" for name, version in told.get("versions", {}).items() if version)
        yield f"{told.get('gpu') or 'no GPU'}, driver {told.get('driver') or '-'}, commit {told.get('commit') or '-'}"
        yield ", ".join(versions)


def _parts(lines: Sequence[Line]) -> Iterator[str]:
    yield ""
    yield f"{'part':10} {'status':10} {'seconds':>8}  reason"
    for line in lines:
        if line["kind"] == "part":
            yield f"{line['name']:10} {line['status']:10} {line['seconds']:8.1f}  {line['reason'] or ''}".rstrip()


def _measurements(lines: Sequence[Line]) -> Iterator[str]:
    for part in PARTS:
        own = [line for line in lines if line.get("part") == part.name and line["kind"] not in {"part", "expedition"}]
        if own:
            yield f"\n{part.name}: {part.what}"
            yield from (f"  {_sentence(line)}" for line in own)


def _sentence(line: Line) -> str:
    if line["kind"] in _SENTENCES and not line.get("reason"):
        return _SENTENCES[line["kind"]](line)
    named = (line.get(key) for key in ("name", "bundle", "backend", "arm", "stage", "precision"))
    what = " ".join([line["kind"], *(each for each in named if isinstance(each, str))])
    verdict = {True: "passed", False: "FAILED", None: "seen"}[line.get("passed")]
    if line.get("reason"):
        return f"{what}: {'FAILED, ' if line.get('passed') is False else ''}{line['reason']}"
    facts = {key: value for key, value in line.items() if key not in _OF_EVERY_LINE and value not in (None, [], {})}
    return f"{what}: {verdict} {json.dumps(facts)}"


def _timing(line: Line) -> str:
    ratio = f", {line['speedup']:.2f} times as fast as pytorch-eager-fp32" if line["speedup"] else ""
    what = f"{line['stage']} {line['side']} x {line['side']}, batch {line['batch']}, {line['arm']}"
    return f"{what}: {line['median_s'] * 1e3:.3f} ms{ratio}"


def _convolution(line: Line) -> str:
    return f"convolution {line['name']}: {line['median_s'] * 1e3:.3f} ms, relative error {line['relative_error']:.1e}"


def _whole_scan(line: Line) -> str:
    if line["kind_of_line"] != "arm":
        return " ".join(str(line[key]) for key in ("kind_of_line", "arm", "seconds") if key in line)
    dice = line["masks"].get("dice")
    return f"whole scan {line['arm']}: {line['seconds']['p50']:.3f} s, Dice {dice} against {line['masks']['reference']}"


def _gate(line: Line) -> str:
    return f"gate {line['backend']} {line['precision']}: {line['missed'] or 'within the limits'}"


_SENTENCES: Mapping[str, Callable[[Line], str]] = {
    "timing": _timing,
    "convolution": _convolution,
    "gate": _gate,
    "whole_scan": _whole_scan,
    "peak": lambda line: f"peak {line['name']}: {line['value']:.1f} {line['unit']}",
}
