"""Evaluate a cohort: check everything first, show progress, then report results and failures."""

from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from rich.markup import escape

from cascade_rt.common.metrics import SampleSet
from cascade_rt.common.outputs import check_files
from cascade_rt.data.case_pairs import CasePair, check_pairs
from cascade_rt.engines import Backend, BackendChoice, PrecisionChoice
from cascade_rt.errors import PartialFailureError, UsageError
from cascade_rt.measuring.evaluation import Evaluation, evaluate
from cascade_rt.measuring.evaluation_report import save_case_table, save_report
from cascade_rt.run.cascade import Cascade, open_cascade
from cascade_rt.scans.nifti.options import ScanOptions
from cascade_rt.scans.volume import Volume
from cascade_rt_cli.console import printable, progress_bar, results_console, shown_errors, shown_message
from cascade_rt_cli.evaluation_tables import print_evaluation
from cascade_rt_cli.plans import plans
from cascade_rt_cli.verbosity import print_note


@dataclass(frozen=True, slots=True)
class Outputs:
    """The requested output files."""

    report: Path | None
    table: Path | None
    overwrite: bool

    def check(self, pairs: Iterable[CasePair]) -> None:
        """Check before the work begins that the files can be written.

        Raises:
            UsageError: Both are the same file, or one of them is an input.
            OutputError: One of them cannot be written, or already exists.
        """
        check_files(
            (self.report, self.table),
            [path for pair in pairs for path in (pair.image, pair.label)],
            overwrite=self.overwrite,
        )

    def save(self, evaluation: Evaluation) -> None:
        """Write the files. Raises OutputError if one cannot be written."""
        if self.report is not None:
            save_report(evaluation, self.report, overwrite=self.overwrite)
        if self.table is not None:
            save_case_table(evaluation, self.table, overwrite=self.overwrite)


def evaluate_cohort(
    pairs: tuple[CasePair, ...],
    bundle: Path | None,
    backend: BackendChoice,
    precision: PrecisionChoice,
    baseline: Backend | None,
    outputs: Outputs,
    *,
    slices: SampleSet,
    reading: ScanOptions,
) -> None:
    """Evaluate a cohort, print the results and save them.

    Names, output files and engines are checked first because this is fast. All labels are checked next. Only then are
    the scans segmented.

    Raises:
        InputError: A scan has no label, or some cases cannot be evaluated.
        PartialFailureError: Some cases failed. The results cover the others.
    """
    outputs.check(pairs)
    with (
        open_cascade(bundle, backend, precision, plans) as cascade,
        nullcontext() if baseline is None else open_cascade(bundle, baseline, "fp32", plans) as reference,
    ):
        if reference is not None and reference.engines.stage1.info == cascade.engines.stage1.info:
            raise UsageError(f"the baseline is the engine itself ({baseline}); name another with --backend")
        engine, against = cascade.engines.stage1.info, "" if baseline is None else f", against {baseline} in fp32"
        what = f"bundle {cascade.bundle.manifest.name} on {engine.backend} {engine.device} in {engine.precision}"
        print_note(f"evaluating {len(pairs)} cases, {what}{against}")
        evaluation = _evaluate_with_progress(pairs, cascade, reference, reading)
    outputs.save(evaluation)
    print_evaluation(results_console(), evaluation, slices)
    if evaluation.failures:
        files = {pair.name: (pair.image, pair.label) for pair in pairs}
        lines = "\n  ".join(shown_message(text, files[name]) for name, text in evaluation.failures.items())
        raise PartialFailureError(f"{len(evaluation.failures)} of {len(pairs)} cases failed\n  {lines}")


def _evaluate_with_progress(
    pairs: tuple[CasePair, ...], cascade: Cascade, baseline: Cascade | None, reading: ScanOptions
) -> Evaluation:
    with progress_bar() as bars, shown_errors([path for pair in pairs for path in (pair.image, pair.label)]):
        checking = bars.add_task("checking labels", total=len(pairs))
        cohort = check_pairs(pairs, reading=reading, on_pair=lambda: bars.advance(checking))
    runs = 1 if baseline is None else 2
    with progress_bar() as bars:
        all_cases, case = bars.add_task("cases", total=len(pairs)), bars.add_task("slices", total=None)

        def show(pair: CasePair, volume: Volume) -> None:
            bars.reset(case, description=escape(printable(pair.name)), total=runs * len(volume.voxels))

        return evaluate(
            cohort,
            cascade,
            baseline,
            reading=reading,
            on_open=show,
            on_slices=lambda count: bars.advance(case, count),
            on_case=lambda _: bars.advance(all_cases),
        )
