"""What does a scan cost from file to mask in everything but the networks, as DICOM against `.nii.gz`?

    python benchmarks/scan_formats.py SERIES [--slices 160] [--rounds 5] [-o benchmarks/results/scan_formats.jsonl]

The slices of a DICOM series are repeated, back and forth, up to the number of slices, and written as
`.nii.gz`, as an uncompressed series, and as a series in JPEG-LS. Each is segmented from file to saved mask and report,
in turns, with engines that look up a result instead of computing one. One JSON line for each format: the median of the
CPU seconds of all threads less those of the engines, and its ratio to that of `.nii.gz`; the first line is the machine.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from itertools import chain, cycle, islice
from pathlib import Path

import nibabel
import numpy as np
from machine import commit, processor_name
from pydicom import Dataset, dcmread
from pydicom.uid import JPEGLSLossless, generate_uid

from cascade_rt.bundles.bundle import embedded_bundle_path, read_bundle
from cascade_rt.common.tensors import STAGE_SPECS, Stage
from cascade_rt.engines import Engines
from cascade_rt.engines.base import Array
from cascade_rt.engines.doctor import package_versions
from cascade_rt.engines.fake import FakeEngine
from cascade_rt.run.cascade import Cascade
from cascade_rt.run.case import Case
from cascade_rt.run.inference import RunOptions, infer_file

SPACING_MM = 2.0
ORGAN = (slice(200, 300), slice(180, 330))
"""Rows and columns of the organ that the engine of stage 1 answers in each slice."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("series", type=Path)
    parser.add_argument("--slices", type=int, default=160)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scans = write_scans(options.series, options.slices, Path(folder))
        seconds = measure(scans, options.rounds, Path(folder) / "mask.nii.gz")
    lines = [json.dumps(line) for line in (machine(), *ratios(seconds, options.slices))]
    print("\n".join(lines))
    if options.output:
        options.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


def machine() -> dict[str, object]:
    """The line that says what was measured with."""
    return {"kind": "machine", "processor": processor_name(), "commit": commit(), "versions": dict(package_versions())}


def ratios(seconds: Mapping[str, list[float]], slices: int) -> Iterator[dict[str, object]]:
    """A line for each format: the median, and its ratio to that of `.nii.gz`."""
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    for name, median in medians.items():
        yield {
            "format": name,
            "slices": slices,
            "cpu_s": round(median, 3),
            "ratio": round(median / medians["nii.gz"], 2),
        }


def write_scans(series: Path, count: int, folder: Path) -> dict[str, Path]:
    """Write the same voxels in each format; return where."""
    slices = [dcmread(path) for path in sorted(series.iterdir())]
    slices.sort(key=lambda each: float(each.ImagePositionPatient[2]))
    raw, compressed = folder / "raw", folder / "jpeg_ls"
    raw.mkdir()
    compressed.mkdir()
    voxels = []
    for number, source in enumerate(islice(cycle(chain(slices, reversed(slices))), count)):
        given = numbered(source, number)
        given.decompress(generate_instance_uid=False)
        voxels.append(given.pixel_array * float(given.RescaleSlope) + float(given.RescaleIntercept))
        given.save_as(raw / f"{number:04d}.dcm")
        given.compress(JPEGLSLossless, generate_instance_uid=False)
        given.save_as(compressed / f"{number:04d}.dcm")
    row_mm, col_mm = map(float, slices[0].PixelSpacing)
    stacked = np.stack(voxels).astype(np.int16).transpose(2, 1, 0)
    nifti = folder / "scan.nii.gz"
    nibabel.Nifti1Image(stacked, np.diag([-col_mm, -row_mm, SPACING_MM, 1])).to_filename(nifti)
    return {"nii.gz": nifti, "DICOM uncompressed": raw, "DICOM JPEG-LS": compressed}


def numbered(source: Dataset, number: int) -> Dataset:
    """A copy of a slice at another place, with an identity of its own."""
    given = dcmread(source.filename)
    given.InstanceNumber = number + 1
    x, y, _ = given.ImagePositionPatient
    given.ImagePositionPatient = [x, y, number * SPACING_MM]
    given.SOPInstanceUID = given.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(number)])
    return given


def measure(scans: Mapping[str, Path], rounds: int, mask: Path) -> dict[str, list[float]]:
    """CPU seconds of each scan, in turns; the first turn warms up and is not counted."""
    bundle = read_bundle(embedded_bundle_path("phantom"))
    engines = TimedEngines()
    seconds: dict[str, list[float]] = {name: [] for name in scans}
    with Cascade(bundle, Engines(engines.stage("stage1"), engines.stage("stage2"))) as cascade:
        for turn, (name, scan) in _turns(scans, rounds + 1):
            begin, in_engines = time.process_time(), engines.seconds
            infer_file(cascade, Case.with_mask(scan, mask), RunOptions(overwrite=True))
            spent = time.process_time() - begin - (engines.seconds - in_engines)
            if turn:
                seconds[name].append(spent)
    return seconds


def _turns(scans: Mapping[str, Path], count: int) -> Iterator[tuple[int, tuple[str, Path]]]:
    return ((turn, scan) for turn in range(count) for scan in scans.items())


class TimedEngines:
    """Engines that answer the same organ and no tumor in every slice, and count the CPU seconds that they take."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def stage(self, stage: Stage) -> FakeEngine:
        """The engine of a stage."""

        def compute(inputs: Mapping[str, Array]) -> dict[str, Array]:
            begin = time.thread_time()
            answer = _organ if stage == "stage1" else _no_tumor
            outputs = answer(inputs[STAGE_SPECS[stage].inputs[0].name])
            self.seconds += time.thread_time() - begin
            return outputs

        return FakeEngine(stage, compute)


def _organ(hu: Array) -> dict[str, Array]:
    prob = np.zeros_like(hu)
    prob[..., *ORGAN] = 1
    return {"organ_prob": prob, "row_max": prob.max((1, 3)), "col_max": prob.max((1, 2)), "salient": prob}


def _no_tumor(salient: Array) -> dict[str, Array]:
    return {"tumor_prob": np.zeros_like(salient)}


if __name__ == "__main__":
    main()
