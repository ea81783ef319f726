"""Which scans a cohort has, which of them are this shard's, and where their results go."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Self

from cascade_rt.errors import InputError, UsageError
from cascade_rt.inference import Job, job_in_folder, refuse_scans_as_results
from cascade_rt.nifti import split_suffix


@dataclass(frozen=True, slots=True)
class Case:
    """A scan of a cohort."""

    name: str
    """What the journal calls it, relative to the folder of results and the same on every machine: `a/b` has the mask
    `a/b_seg.nii.gz`."""
    job: Job


@dataclass(frozen=True, slots=True)
class Shard:
    """One part of a cohort that is divided between machines."""

    index: int
    """From 0 to `count` - 1."""
    count: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `i/n`; UsageError where that is none."""
        index, slash, count = text.partition("/")
        if not (slash and index.isascii() and index.isdecimal() and count.isascii() and count.isdecimal()):
            raise UsageError(f"--shard {text}: is not of the form i/n; write 0/16 for the first of sixteen parts")
        if not int(index) < int(count):
            raise UsageError(
                f"--shard {text}: parts are counted from 0; of {count} the last is {int(count) - 1}/{count}"
            )
        return cls(int(index), int(count))

    def has(self, name: str) -> bool:
        """Whether a case is of this part, which does not depend on what other cases there are."""
        return int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:8], "big") % self.count == self.index


def plan_cases(sources: Sequence[Path], output: Path, *, pictures: bool = False) -> list[Case]:
    """Find the scans of a cohort and decide where their results go.

    Args:
        sources: Folders, of which all `.nii` and `.nii.gz` in them are taken, however deep, but for hidden ones; lists,
            which are text files `.txt` with the path of a scan on each line, relative to the list; and scans.
        output: The folder of results. Below it they have the folders that their scans have below the source.
        pictures: Whether to draw a preview of each mask.

    Returns:
        Cases in the order of the sources; inside a folder by name.

    Raises:
        InputError: A list cannot be read.
        UsageError: A folder or a list has no scans, results would lie among the scans of a folder, two scans would have
            the same results, or a result would overwrite a scan.
    """
    cases: dict[str, Case] = {}
    for name, scan in _named_scans(sources, output):
        if name in cases:
            raise UsageError(
                f"{cases[name].job.scan} and {scan} would both become {name}_seg.nii.gz; name one of them otherwise, "
                "or segment them apart"
            )
        folder, _, stem = name.rpartition("/")
        cases[name] = Case(name, job_in_folder(scan, output / folder, stem, pictures=pictures))
    refuse_scans_as_results([case.job for case in cases.values()])
    return list(cases.values())


def _named_scans(sources: Sequence[Path], output: Path) -> Iterator[tuple[str, Path]]:
    for source in sources:
        if not holds_many(source):
            yield _stem(source.name), source
        elif source.is_dir():
            yield from _in_folder(source, output)
        else:
            yield from _in_list(source)


def holds_many(source: Path) -> bool:
    """Whether a path is that of a folder or a list of scans; a folder with the name of a scan is a mistake."""
    return source.suffix.lower() == ".txt" or (source.is_dir() and not split_suffix(source.name)[1])


def _in_folder(root: Path, output: Path) -> Iterator[tuple[str, Path]]:
    if output.resolve() == root.resolve():
        raise UsageError(f"{output}: results would lie among the scans; name another folder with -o")
    skipped, found = output.resolve(), False
    for folder, inner, files in os.walk(root):
        here = Path(folder)
        inner[:] = sorted(each for each in inner if not each.startswith(".") and (here / each).resolve() != skipped)
        # Files that begin with a dot are what macOS leaves beside the true ones, in MSD too.
        for file in sorted(each for each in files if split_suffix(each)[1] and not each.startswith(".")):
            found = True
            yield _stem((here / file).relative_to(root).as_posix()), here / file
    if not found:
        advice = "name the folder of the scans, and convert DICOM first, with dcm2niix"
        raise UsageError(f"{root}: has no .nii or .nii.gz in it; {advice}")


def _in_list(path: Path) -> Iterator[tuple[str, Path]]:
    try:
        text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise InputError(f"{path}: the list cannot be read ({error.strerror}); check the path") from error
    lines = [line.strip() for line in text.splitlines()]
    scans = [line for line in lines if line and not line.startswith("#")]
    if not scans:
        raise UsageError(f"{path}: names no scan; write the path of one on each line")
    for scan in scans:
        # A path that leads out of the list's folder would take its results out of theirs.
        inside = not Path(scan).is_absolute() and ".." not in Path(scan).parts
        yield _stem(PurePosixPath(*Path(scan).parts).as_posix() if inside else Path(scan).name), path.parent / scan


def _stem(name: str) -> str:
    return split_suffix(name)[0] if split_suffix(name)[1] else name


def of_shard(cases: Iterable[Case], shard: Shard | None) -> list[Case]:
    """The cases of one part; without one, all."""
    return [case for case in cases if shard is None or shard.has(case.name)]
