"""One scan and where its results go."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cascade_rt.common.outputs import check_file, check_folder, write_error
from cascade_rt.common.plain_file import NotAPlainFileError
from cascade_rt.errors import InputError, OutputError
from cascade_rt.run.extra_results import EXTRA_FORMATS, ExtraResult
from cascade_rt.scans.names import mask_name, result_stem


@dataclass(frozen=True, slots=True)
class Case:
    """One scan and where its results go."""

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

    @contextmanager
    def output_gate(self) -> Iterator[None]:
        """Turn any OSError about the results into an error of this case, so that other cases continue."""
        try:
            yield
        except NotAPlainFileError as error:
            raise OutputError(f"{self.mask}: a result {error}; was it replaced?") from error
        except OSError as error:
            raise write_error(self.mask, error) from error
