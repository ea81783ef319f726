"""Run the demo: patient slices next to an expert's outlines, then a phantom with its tumor."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console

from cascade_rt.bundles.bundle import default_bundle_path, embedded_bundle_path
from cascade_rt.common.atomic import write_bytes
from cascade_rt.common.metrics import dice
from cascade_rt.common.outputs import make_folder
from cascade_rt.data import demo_patient
from cascade_rt.data.phantom import make_phantom
from cascade_rt.data.phantom_files import write_phantom_files
from cascade_rt.engines import BackendChoice
from cascade_rt.results.preview import render_comparison, save_picture
from cascade_rt.results.segmentation import Segmentation
from cascade_rt.run.cascade import open_cascade
from cascade_rt.run.case import Case
from cascade_rt.run.inference import RunOptions, infer_file
from cascade_rt.scans.nifti.options import DEFAULT_SCAN_OPTIONS, ScanOptions
from cascade_rt.scans.volume import read_mask
from cascade_rt_cli.console import (
    print_rows,
    printable,
    progress_bar,
    results_console,
    shown,
    spinner,
)
from cascade_rt_cli.findings import print_findings, print_intended_use, run_rows
from cascade_rt_cli.plans import plans


def run_demo(output: Path, seed: int, shape: tuple[int, int, int], bundle: Path | None, backend: BackendChoice) -> None:
    """Run both parts of the demo into a folder, replacing the files of an earlier demo."""
    console = results_console()
    patient, phantom = (
        Case.in_folder(output / f"{name}.nii.gz", output, name, pictures=True) for name in ("patient", "phantom")
    )
    for case in (patient, phantom):
        case.check_output(overwrite=True)
    make_folder(output)
    _show_patient(console, patient, bundle or default_bundle_path(), backend)
    console.print()
    _show_phantom(console, phantom, seed, shape, bundle or embedded_bundle_path("phantom"), backend)


def _show_patient(console: Console, case: Case, bundle: Path, backend: BackendChoice) -> None:
    label, attribution = _copy_patient(case.scan)
    truth = read_mask(label)
    segmentation = _segment(replace(case, picture=None), len(truth), bundle, backend, demo_patient.READING)
    if case.picture is not None:
        note = f"{demo_patient.SOURCE}; pixels are taken to measure 0.8 mm"
        save_picture(render_comparison(segmentation, truth, note), case.picture, overwrite=True)
    scores = [dice(found > 0, drawn) for found, drawn in zip(segmentation.mask, truth, strict=True)]
    by_slice = ", ".join(f"{score:.2f}" for score in scores)
    found = f"Dice with what an expert drew: {by_slice}; mean {np.mean(scores):.2f}"
    origin = f"{demo_patient.SOURCE}, see {shown(attribution)}"
    console.print(f"{printable(shown(case.scan))}: {len(truth)} slices of as many patients, far apart", style="bold")
    print_rows(console, [("pancreas", found), *run_rows(case, segmentation.to_json()), ("source", origin)], indent=2)
    print_intended_use(console, segmentation.provenance["bundle"])


def _copy_patient(scan: Path) -> tuple[Path, Path]:
    """Copy the slices to a file, and their label and attribution next to it. Returns the paths of these two."""
    label, attribution = (scan.with_name(f"patient_{name}") for name in ("label.nii.gz", "ATTRIBUTION.md"))
    sources = (demo_patient.SCAN, demo_patient.LABEL, demo_patient.ATTRIBUTION)
    for source, copy in zip(sources, (scan, label, attribution), strict=True):
        write_bytes(copy, source.read_bytes(), overwrite=True)
    return label, attribution


def _show_phantom(
    console: Console, case: Case, seed: int, shape: tuple[int, int, int], bundle: Path, backend: BackendChoice
) -> None:
    with spinner() as say:
        say(f"making phantom {seed}")
        phantom = make_phantom(seed, shape)
        write_phantom_files(phantom, case.scan, case.scan.with_name("phantom_label.nii.gz"))
    segmentation = _segment(case, len(phantom.hu), bundle, backend)
    print_findings(console, case, segmentation.to_json())
    organ, tumor = (dice(segmentation.mask >= label, phantom.label >= label) for label in (1, 2))
    truth = f"Dice against the true label: pancreas {organ:.3f}, tumor {tumor:.3f}"
    print_rows(console, [("truth", truth)], indent=2)
    print_intended_use(console, segmentation.provenance["bundle"])


def _segment(
    case: Case, slices: int, bundle: Path, backend: BackendChoice, reading: ScanOptions = DEFAULT_SCAN_OPTIONS
) -> Segmentation:
    with open_cascade(bundle, backend, plans=plans) as cascade, progress_bar() as bars:
        bar = bars.add_task("segmenting", total=slices)
        return infer_file(cascade, case, RunOptions(reading, overwrite=True), on_slices=lambda n: bars.advance(bar, n))
