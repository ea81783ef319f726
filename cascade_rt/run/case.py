"""One scan and where its results go."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from cascade_rt.common.outputs import check_file, check_folder, write_error
from cascade_rt.common.plain_file import NotAPlainFileError
from cascade_rt.errors import InputError, InputWarning, OutputError
from cascade_rt.run.extra_results import EXTRA_FORMATS, ExtraResult, check_extras
from cascade_rt.scans.names import mask_name, result_stem
from cascade_rt.scans.nifti.options import ScanOptions
from cascade_rt.scans.volume import Volume


@dataclass(frozen=True, slots=True)
class Case:
    """One scan and where its results go.

    Raises:
        UsageError: The extra results cannot be written together.
    """

    scan: Path
    mask: Path
    report: Path
    extras: tuple[ExtraResult, ...] = ()
    """What else is written beside the mask."""
    name: str = ""
    """Name in the journal, relative to the output folder and the same on every machine: case `a/b` has the mask
    `a/b_seg.nii.gz`."""
    refusal: InputError | None = None
    """Why nothing can be computed, such as an unreadable folder, a broken link or an invalid path; otherwise None."""
    series: str | None = None
    """The UID of the DICOM series to read from the scan; None leaves that to the reading options."""

    def __post_init__(self) -> None:
        check_extras(self.extras)

    @classmethod
    def with_mask(
        cls,
        scan: Path,
        mask: Path,
        *,
        name: str = "",
        extras: Sequence[ExtraResult] = (),
        refusal: InputError | None = None,
    ) -> "Case":
        """Return the case whose report and other results lie beside its mask: `<name>.json`, `<name>.png`."""
        return cls(scan, mask, mask.with_name(f"{result_stem(mask.name)}.json"), tuple(extras), name, refusal)

    @classmethod
    def in_folder(
        cls,
        scan: Path,
        folder: Path,
        name: str,
        *,
        extras: Sequence[ExtraResult] = (),
        refusal: InputError | None = None,
    ) -> "Case":
        """Return the case that writes `<name>_seg.nii.gz`, `<name>_seg.json` and, say, `<name>_seg.png` to a folder.

        The mask of an NRRD or MetaImage scan is `<name>.seg.nrrd` or `<name>_seg.mha`. A name with slashes goes to
        subfolders.
        """
        return cls.with_mask(scan, folder / mask_name(name, scan.name), name=name, extras=extras, refusal=refusal)

    def extra_path(self, extra: ExtraResult) -> Path:
        """Return where an extra result is written: beside the mask, with its name and another suffix."""
        return self.mask.with_name(result_stem(self.mask.name) + EXTRA_FORMATS[extra].suffix)

    def reading(self, options: ScanOptions) -> ScanOptions:
        """Return how the scan is read, given the options of the run."""
        return options if self.series is None else replace(options, series=self.series)

    @property
    def results(self) -> tuple[Path, ...]:
        """All files that are written."""
        return (self.mask, self.report, *map(self.extra_path, self.extras))

    def check_output(self, *, overwrite: bool) -> None:
        """Check, without leaving a trace, that the results can be written before work begins.

        Raises:
            OutputExistsError: A result exists and `overwrite` is False.
            OutputError: The folder, or the one it would be created in, cannot be written to, or a result is a folder.
        """
        with self.output_gate():
            check_folder(self.mask.parent)
            for path in self.results:
                if path.parent.is_dir():
                    check_file(path, overwrite=overwrite)

    def check_scan(self, volume: Volume) -> None:
        """Check, before anything is computed, that the extra results can be made of a scan.

        Args:
            volume: The scan; only its header need have been read.

        Raises:
            InputError: A result cannot be made of this scan.
            BackendUnavailableError: A package that writes a result is not installed.
        """
        for extra in self.extras:
            EXTRA_FORMATS[extra].check(volume)

    def doubts(self, volume: Volume) -> tuple[InputWarning, ...]:
        """Return what is doubtful about the extra results of a scan."""
        return tuple(doubt for extra in self.extras for doubt in EXTRA_FORMATS[extra].doubts(volume))

    @contextmanager
    def output_gate(self) -> Iterator[None]:
        """Turn any OSError about the results into an error of this case, so that other cases continue."""
        try:
            yield
        except NotAPlainFileError as error:
            raise OutputError(f"{self.mask}: a result {error}; was it replaced?") from error
        except OSError as error:
            raise write_error(self.mask, error) from error
