"""`cascade-rt demo`: segment slices of patients, as they are and with synthetic tumors, and a synthetic scan."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from cascade_rt.bundles.bundle import default_bundle_path, embedded_bundle_path
from cascade_rt.common.atomic import write_bytes
from cascade_rt.common.metrics import dice
from cascade_rt.common.outputs import make_folder
from cascade_rt.data import demo_patient
from cascade_rt.engines import BackendChoice, EngineRequest
from cascade_rt.scans.nifti.options import DEFAULT_SCAN_OPTIONS, ScanOptions
from cascade_rt_cli.console import (
    print_rows,
    progress_bar,
    results_console,
    spinner,
)
from cascade_rt_cli.findings import print_findings, print_intended_use, run_rows
from cascade_rt_cli.messages import printable, shown
from cascade_rt_cli.options import BUNDLE, PATH, backend_option, shape_option
from cascade_rt_cli.plans import plans

if TYPE_CHECKING:
    from cascade_rt.results.preview import Truth
    from cascade_rt.results.segmentation import Segmentation
    from cascade_rt.run.case import Case


@click.command()
@click.option(
    "-o",
    "--output",
    type=PATH,
    default=Path("out/demo"),
    show_default=True,
    metavar="FOLDER",
    help="Output folder; files of an earlier demo are replaced.",
)
@click.option("--seed", type=click.IntRange(min=0), default=10_001, show_default=True, help="Seed of the phantom.")
@shape_option
@click.option(
    "--bundle",
    type=BUNDLE,
    metavar="BUNDLE",
    help="Segment everything with this bundle. Default: the patients with the default of infer, those with synthetic "
    "tumors with patients-tumor, and the phantom with phantom.",
)
@backend_option
def demo(output: Path, seed: int, shape: tuple[int, int, int], bundle: Path | None, backend: BackendChoice) -> None:
    """Segment slices of real patients, the same with synthetic tumors, and a synthetic scan, and draw what was found.

    The six slices come with the package, each of another patient, with the outline that an expert drew of the pancreas
    (NIH Pancreas-CT, CC BY 3.0). These patients are healthy, so the tumors are synthetic; how a bundle does on them
    says little about real ones. The phantom is synthetic as a whole. No embedded bundle was trained on these slices, or
    on phantoms with seeds of 10000 and above.

    FOLDER then holds patient.nii.gz, tumor.nii.gz and phantom.nii.gz, the true label of each (_label.nii.gz), and as
    from infer the mask _seg.nii.gz, the report _seg.json and the picture _seg.png. The slices are not a whole scan:
    their volumes mean nothing, and infer needs --assume-hu for them, because values below 0 HU were lost before.
    """
    from cascade_rt.run.case import Case

    patient, tumor, phantom = (
        Case.in_folder(output / f"{name}.nii.gz", output, name, extras=["picture"])
        for name in ("patient", "tumor", "phantom")
    )
    for case in (patient, tumor, phantom):
        case.check_output(overwrite=True)
    make_folder(output)
    _show_patient(patient, bundle or default_bundle_path(), backend)
    results_console().print()
    _show_tumors(tumor, seed, bundle or embedded_bundle_path("patients-tumor"), backend)
    results_console().print()
    _show_phantom(phantom, seed, shape, bundle or embedded_bundle_path("phantom"), backend)


def _show_patient(case: "Case", bundle: Path, backend: BackendChoice) -> None:
    from cascade_rt.results.preview import Truth
    from cascade_rt.scans.volume import read_mask

    label, attribution = _copy_patient(case.scan)
    truth = Truth(read_mask(label))
    origin = f"{demo_patient.SOURCE}, see {shown(attribution)}"
    title = f"{len(truth.label)} slices, each from a different patient"
    score, note = "Dice against an expert's outlines", f"{demo_patient.SOURCE}; pixel size assumed to be 0.8 mm"
    _show_slices(case, truth, bundle, backend, title=title, score=("pancreas", score), note=note, origin=origin)


def _show_tumors(case: "Case", seed: int, bundle: Path, backend: BackendChoice) -> None:
    from cascade_rt.common.labels import TUMOR_LABEL
    from cascade_rt.data.demo_tumors import write_files_with_tumors
    from cascade_rt.results.preview import Truth
    from cascade_rt.scans.volume import read_mask

    label = case.scan.with_name("tumor_label.nii.gz")
    write_files_with_tumors(case.scan, label, seed)
    truth = Truth(read_mask(label), "synthetic tumor", TUMOR_LABEL)
    title = "the same slices, each with a synthetic tumor"
    note = f"{demo_patient.SOURCE}, changed: the tumors are synthetic"
    score = ("tumors", "Dice against the synthetic tumors")
    _show_slices(case, truth, bundle, backend, title=title, score=score, note=note)


def _show_slices(
    case: "Case",
    truth: "Truth",
    bundle: Path,
    backend: BackendChoice,
    *,
    title: str,
    score: tuple[str, str],
    note: str,
    origin: str | None = None,
) -> None:
    """Segment the slices, draw them beside the truth, and print the Dice of each."""
    from cascade_rt.results.preview import render_comparison, save_picture

    console = results_console()
    segmentation = _segment(replace(case, extras=()), len(truth.label), bundle, backend, demo_patient.READING)
    save_picture(render_comparison(segmentation, truth, note), case.extra_path("picture"), overwrite=True)
    console.print(f"{printable(shown(case.scan))}: {title}", style="bold")
    found = (score[0], f"{score[1]}: {_scores_text(truth.dice(segmentation.mask))}")
    source = [] if origin is None else [("source", origin)]
    print_rows(console, [found, *run_rows(case, segmentation.to_json()), *source], indent=2)
    print_intended_use(console, segmentation.provenance["bundle"])


def _scores_text(scores: list[float]) -> str:
    return f"{', '.join(f'{score:.2f}' for score in scores)}; mean {np.mean(scores):.2f}"


def _copy_patient(scan: Path) -> tuple[Path, Path]:
    """Copy the slices to a file, and their label and attribution next to it. Returns the paths of these two."""
    label, attribution = (scan.with_name(f"patient_{name}") for name in ("label.nii.gz", "ATTRIBUTION.md"))
    sources = (demo_patient.SCAN, demo_patient.LABEL, demo_patient.ATTRIBUTION)
    for source, copy in zip(sources, (scan, label, attribution), strict=True):
        write_bytes(copy, source.read_bytes(), overwrite=True)
    return label, attribution


def _show_phantom(case: "Case", seed: int, shape: tuple[int, int, int], bundle: Path, backend: BackendChoice) -> None:
    from cascade_rt.data.phantom import make_phantom
    from cascade_rt.data.phantom_files import write_phantom_files

    console = results_console()
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
    case: "Case", slices: int, bundle: Path, backend: BackendChoice, reading: ScanOptions = DEFAULT_SCAN_OPTIONS
) -> "Segmentation":
    from cascade_rt.run.cascade import open_cascade
    from cascade_rt.run.inference import RunOptions, infer_file

    with open_cascade(bundle, engines=EngineRequest(backend, plans=plans)) as cascade, progress_bar() as bars:
        bar = bars.add_task("segmenting", total=slices)
        return infer_file(cascade, case, RunOptions(reading, overwrite=True), on_slices=lambda n: bars.advance(bar, n))
