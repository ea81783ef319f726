"""One scan and where its results go."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cascade_rt.common.outputs import check_file, check_folder, write_error
from cascade_rt.common.plain_file import NotAPlainFileError
from cascade_rt.errors import InputError, OutputError
from cascade_rt.scans.nifti import split_suffix


@dataclass(frozen=True, slots=True)
class Case:
    """One scan and where its results go."""

    scan: Path
    mask: Path
    report: Path
    picture: Path | None = None
    """Preview of the most informative slice, or None if not requested."""
    name: str = ""
    """Name in the journal, relative to the output folder and the same on every machine: case `a/b` has the mask
    `a/b_seg.nii.gz`."""
    refusal: InputError | None = None
    """Why nothing can be computed, such as an unreadable folder, a broken link or an invalid path; otherwise None."""

    @classmethod
    def with_mask(
        cls, scan: Path, mask: Path, *, name: str = "", pictures: bool = False, refusal: InputError | None = None
    ) -> "Case":
        """Return the case whose report and picture lie beside its mask: `<name>.json`, `<name>.png`."""
        stem, _ = split_suffix(mask.name)
        picture = mask.with_name(f"{stem}.png") if pictures else None
        return cls(scan, mask, mask.with_name(f"{stem}.json"), picture, name, refusal)

    @classmethod
    def in_folder(
        cls, scan: Path, folder: Path, name: str, *, pictures: bool = False, refusal: InputError | None = None
    ) -> "Case":
        """Return the case that writes `<name>_seg.nii.gz`, `<name>_seg.json` and `<name>_seg.png` to a folder.

        A name with slashes goes to subfolders.
        """
        return cls.with_mask(scan, folder / f"{name}_seg.nii.gz", name=name, pictures=pictures, refusal=refusal)

    @property
    def results(self) -> tuple[Path, ...]:
        """All files that are written."""
        return (self.mask, self.report) if self.picture is None else (self.mask, self.report, self.picture)

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
