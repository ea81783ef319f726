"""The demonstration: phantom, segmentation, picture, and how close the mask is to the truth."""

from pathlib import Path

from cascade_rt.cascade import open_cascade
from cascade_rt.data.phantom import make_phantom
from cascade_rt.data.phantom_files import write_phantom_files
from cascade_rt.engines import BackendChoice
from cascade_rt.inference import Job, check_output, infer_file, make_folder
from cascade_rt.metrics import dice
from cascade_rt_cli.console import (
    print_intended_use,
    print_rows,
    print_segmentation,
    progress_bar,
    results_console,
    spinner,
)
from cascade_rt_cli.plans import plans


def run_demo(output: Path, seed: int, shape: tuple[int, int, int], bundle: Path | None, backend: BackendChoice) -> None:
    """Run the demonstration into a folder of its own; an earlier one there is replaced."""
    console = results_console()
    scan, mask, report = (output / name for name in ("phantom.nii.gz", "phantom_seg.nii.gz", "phantom_seg.json"))
    job = Job(scan, mask, report, output / "preview.png")
    check_output(job, overwrite=True)
    with open_cascade(bundle, backend, plans=plans) as cascade:
        with spinner() as say:
            say(f"making phantom {seed}")
            phantom = make_phantom(seed, shape)
            make_folder(output)
            write_phantom_files(phantom, job.scan, output / "phantom_label.nii.gz")
        with progress_bar() as bars:
            bar = bars.add_task("segmenting", total=len(phantom.hu))
            segmentation = infer_file(cascade, job, overwrite=True, on_slices=lambda count: bars.advance(bar, count))
    print_segmentation(console, job, segmentation)
    organ, tumor = (dice(segmentation.mask >= label, phantom.label >= label) for label in (1, 2))
    truth = f"Dice against the true label: pancreas {organ:.3f}, tumour {tumor:.3f}"
    print_rows(console, [("truth", truth)], indent=2)
    print_intended_use(console, segmentation)
