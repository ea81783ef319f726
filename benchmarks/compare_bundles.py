"""Does a bundle that was exported again compute what the one before it did, and how near is its half precision?

    python benchmarks/compare_bundles.py OLD_BUNDLE NEW_BUNDLE [--cases 20] -o results.jsonl

Both are run on held-out phantoms with ONNX Runtime in float32 and compared bit by bit; the new one also in half
precision, whose masks are compared with its float32 ones. One JSON line per phantom and one of means. Where the old
bundle was compared with PyTorch (`phantom_accuracy.py`) and the bits are the same, so was the new one.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from machine import commit, processor_name
from phantom_accuracy import FIRST_SEED

from cascade_rt.bundles.bundle import embedded_bundle_path, read_bundle
from cascade_rt.common.comparison import compare, moved_boxes
from cascade_rt.common.labels import LOWEST_LABEL
from cascade_rt.data.phantom import make_phantom
from cascade_rt.engines import open_engines
from cascade_rt.run.scan_run import ScanRun, segment_voxels


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path, nargs="?", default=embedded_bundle_path("phantom"))
    parser.add_argument("--cases", type=int, default=20)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()

    old, new = read_bundle(options.old), read_bundle(options.new)
    config = new.manifest.config
    engines = [open_engines(old, "onnxruntime", "fp32"), *(open_engines(new, "onnxruntime", p) for p in new.precisions)]
    lines: list[dict[str, Any]] = [
        {"kind": "machine", "processor": processor_name(), "commit": commit(), "old": old.sha256, "new": new.sha256}
    ]
    with options.output.open("w", encoding="utf-8") as file:
        file.write(json.dumps(lines[0]) + "\n")
        for seed in range(FIRST_SEED, FIRST_SEED + options.cases):
            phantom = make_phantom(seed)
            before, single, half = (
                segment_voxels(each, config, phantom.hu, phantom.spacing_mm[1:], keep_probabilities=True)
                for each in engines
            )
            lines.append({"kind": "case", "seed": seed, **same_bits(before, single), **agreement(single, half)})
            file.write(json.dumps(lines[-1]) + "\n")
            file.flush()
        file.write(json.dumps(summary(lines[1:])) + "\n")


def same_bits(first: ScanRun, second: ScanRun) -> dict[str, Any]:
    """Whether both probabilities are the same, and in how many voxels the masks are not."""
    pairs = zip(first.probabilities.values(), second.probabilities.values(), strict=True)
    return {
        "same_bits": not any(compare(*pair).different for pair in pairs),
        "different_voxels": compare(first.mask, second.mask).different,
    }


def agreement(single: ScanRun, half: ScanRun) -> dict[str, Any]:
    """How half precision agrees with float32; the Dice of two empty masks is none."""
    masks = compare(single.mask, half.mask, LOWEST_LABEL)
    return {
        "half_mask_dice": masks.dice,
        "half_different_voxels": masks.different,
        "half_boxes_moved": len(moved_boxes(single.boxes, half.boxes)),
    }


def summary(cases: list[dict[str, Any]]) -> dict[str, Any]:
    """Means and worst cases."""
    found: dict[str, Any] = {"kind": "summary", "cases": len(cases), "same_bits": all(c["same_bits"] for c in cases)}
    for name in ("organ", "tumor"):
        values = [case["half_mask_dice"][name] for case in cases if case["half_mask_dice"][name] is not None]
        found[f"{name}_mask_dice_mean"] = statistics.fmean(values)
        found[f"{name}_mask_dice_min"] = min(values)
        found[f"{name}_cases_at_least_0.999"] = sum(value >= 0.999 for value in values)
    found["half_boxes_moved"] = sum(case["half_boxes_moved"] for case in cases)
    return found


if __name__ == "__main__":
    main()
