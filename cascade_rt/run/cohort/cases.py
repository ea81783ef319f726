"""Find scans in files, folders and lists, decide where their results go, and select those of a shard."""

import codecs
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Self

from cascade_rt.common.folders import FolderContent, unreadable_folder, walk_folder
from cascade_rt.common.outputs import refuse_inputs
from cascade_rt.common.plain_file import NotAPlainFileError, read_plain_file
from cascade_rt.errors import BackendUnavailableError, InputError, UsageError
from cascade_rt.run.case import Case
from cascade_rt.run.cohort.dicom_series import SeriesCase, SeriesSearch, is_one_study, series_of
from cascade_rt.run.cohort.left_out import OTHER_FORMATS, LeftOut
from cascade_rt.run.cohort.own_masks import is_own_mask, is_own_probabilities
from cascade_rt.run.extra_results import ExtraResult
from cascade_rt.scans.names import MASKS_IN_WORDS, SCAN_SUFFIXES, is_mask_name, is_scan_name, split_suffix
from cascade_rt.scans.opening import stores_dicom

_OF_DICOM = re.compile(r"(?<=.)\.(dcm|zip)$", re.IGNORECASE)
_LONGEST_LIST = 1 << 30
_FOREIGN_SUFFIXES = {".mhd", ".nhdr", ".hdr", ".img", ".dcm", ".gz", ".png", ".json"}
"""Suffixes of files that somebody may expect as a mask."""
_ENCODINGS = (
    # UTF-32 first: its little-endian byte order mark begins with that of UTF-16.
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


_NO_FOLDERS = OTHER_FORMATS | frozenset(
    f".{ending}"
    for ending in (
        *("bval", "bvec", "csv", "docx", "gif", "gz", "html", "ini", "jpeg", "jpg", "json", "log", "mat", "md", "npy"),
        *("npz", "pdf", "png", "py", "sh", "svg", "tar", "tgz", "tif", "tiff", "toml", "tsv", "txt", "xls", "xlsx"),
        *("nrrd", "xml", "yaml", "yml", "zip"),
    )
)
"""Suffixes of files that are not scans. Folder names may have any suffix: a date, a number, part of a UID."""
_LONGEST_NUMBER, _LONGEST_SHOWN = 9, 40
"""Maximum digits of a shard number, and maximum characters of an invalid shard shown in a message."""


@dataclass(frozen=True, slots=True)
class Shard:
    """One part of a cohort that is divided among machines."""

    index: int
    """From 0 to `count` - 1."""
    count: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse `i/n`. Raises UsageError if the text is not of this form."""
        index, slash, count = text.partition("/")
        if not (slash and _is_number(index) and _is_number(count)):
            shown = text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."
            raise UsageError(f"shard {shown}: is not of the form i/n; write 0/16 for the first of sixteen parts")
        if not int(index) < int(count):
            last = f"the last of {int(count)} is {int(count) - 1}/{int(count)}" if int(count) else "0/1 is the whole"
            raise UsageError(f"shard {text}: parts are numbered from 0; {last}")
        return cls(int(index), int(count))

    def has(self, name: str) -> bool:
        """Return whether a case belongs to this shard, which does not depend on the other cases."""
        return int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:8], "big") % self.count == self.index


def _is_number(text: str) -> bool:
    """Return whether a text is a decimal number short enough to be a shard index or count."""
    return text.isascii() and text.isdecimal() and len(text) <= _LONGEST_NUMBER


def plan_cases(
    sources: Sequence[Path],
    output: Path | None = None,
    *,
    extras: Sequence[ExtraResult] = (),
    every_series: bool = False,
    on_left_out: Callable[[Path, str], None] = lambda *_: None,
) -> list[Case]:
    """Find scans and decide where their results go.

    Args:
        sources: Scans, folders and lists. A folder is searched recursively for scans (see `SCAN_SUFFIXES`), except for
            hidden ones and for our own masks that lie beside their report, and for the series of DICOM studies, also in
            zip archives. Links are followed, and each folder is entered once. A list is a `.txt` file with the path of
            one scan per line, relative to the list. A line that begins with # and does not name an existing file is a
            comment. A folder with one DICOM study, and nothing else that can be read, is one scan.
        output: The output folder, which mirrors the subfolders that the scans have in their source; None for the
            current folder. For a single scan it may be the mask file (see `MASK_SUFFIXES`).
        extras: What else to write for each scan.
        every_series: Make one case of each CT series of a DICOM study. Otherwise a study is one case, of which the
            reading options choose the series.
        on_left_out: Called with a source folder and a phrase that counts the images in it that are not read, if there
            are any.

    Returns:
        Cases in the order of the sources; within a folder sorted by name, those behind links last. In the output
        folder, the mask is `<name>_seg.nii.gz`, `<name>.seg.nrrd` or `<name>_seg.mha`, as its scan is; the report is
        `<name>_seg.json` and a picture `<name>_seg.png`. Anything that may hold scans but cannot be read becomes a case
        with a refusal, so that no scan is omitted silently.

    Raises:
        InputError: A list or a folder that was named cannot be read.
        UsageError: A folder or a list has no scans, results would be written among the scans of a folder, one output
            file is given for several scans, two scans would have the same results, a result would overwrite a scan, or
            a mask cannot be written under the name of the output file.
    """
    if output is not None and _is_mask_file(sources, output):
        return _checked([Case.with_mask(sources[0], output, name=_stem(sources[0].name), extras=extras)])
    folder = output or Path()
    cases: dict[str, Case] = {}
    for found in _named_scans(sources, folder, on_left_out, every_series=every_series):
        name = found.name
        if name in cases:
            raise UsageError(
                f"{cases[name].scan} and {found.scan} would both become {_results(cases[name])}; rename one of them, "
                "or segment them separately"
            )
        case = Case.in_folder(found.scan, folder, name, extras=extras, refusal=found.refusal)
        cases[name] = replace(case, series=found.series)
    return _checked(list(cases.values()))


def _results(case: Case) -> str:
    """Return the name of the mask of a case, with its folders inside the output folder."""
    return (PurePosixPath(case.name).parent / case.mask.name).as_posix()


def _is_mask_file(sources: Sequence[Path], output: Path) -> bool:
    """Return whether an output is meant as one mask file rather than as a folder."""
    if output.is_dir():
        return False
    is_mask = is_mask_name(output.name)
    is_one_scan = len(sources) == 1 and not holds_many(sources[0])
    if is_mask and not is_one_scan:
        raise UsageError(f"{output}: is one file for several scans; choose a folder")
    if is_one_scan and not is_mask and output.suffix.lower() in _FOREIGN_SUFFIXES:
        raise UsageError(f"{output}: masks are written as {MASKS_IN_WORDS}; choose such a name, or a folder")
    return is_mask


def _checked(cases: list[Case]) -> list[Case]:
    """Return the cases, unless a result would overwrite a scan, even through a link."""
    computed = [case for case in cases if case.refusal is None]
    refuse_inputs([path for case in computed for path in case.results], [case.scan for case in computed])
    return cases


def _named_scans(
    sources: Sequence[Path], output: Path, on_left_out: Callable[[Path, str], None], *, every_series: bool
) -> Iterator[SeriesCase]:
    for source in sources:
        if not holds_many(source):
            yield from _in_one_scan(_stem(source.absolute().name), source, every_series=every_series)
        elif source.is_dir():
            left_out = LeftOut()
            yield from _in_folder(source, output, left_out)
            if str(left_out):
                on_left_out(source, str(left_out))
        else:
            yield from _in_list(source, every_series=every_series)


def _in_one_scan(name: str, scan: Path, *, every_series: bool) -> Sequence[SeriesCase]:
    """Return the case of a scan, or one for each series of a study."""
    found = series_of(scan, name) if every_series and stores_dicom(scan) else ()
    return found or [SeriesCase(name, scan, None)]


def holds_many(source: Path) -> bool:
    """Return whether a path is a list or a folder of scans.

    A folder named like a scan is a mistake, not a source, and one with a single DICOM study is one scan.
    """
    if source.suffix.lower() == ".txt":
        return True
    return source.is_dir() and not split_suffix(source.name)[1] and not is_one_study(source)


def _in_folder(root: Path, output: Path, left_out: LeftOut) -> Iterator[SeriesCase]:
    if os.path.realpath(output) == os.path.realpath(root):
        raise UsageError(f"{output}: results would be mixed with the scans; choose another `output`")
    skipped, found, refused = os.path.realpath(output), False, []
    search, lacking = SeriesSearch(root), None

    def refuse(error: OSError) -> None:
        if error.filename == os.fspath(root):
            raise unreadable_folder(error) from error
        folder = Path(error.filename)
        refused.append(SeriesCase(f"{folder.relative_to(root).as_posix()}/", folder, None, unreadable_folder(error)))

    for content in walk_folder(root, refuse):
        here = content.path
        content.folders[:] = [
            each for each in content.folders if not each.startswith(".") and os.path.realpath(here / each) != skipped
        ]
        seen: set[str] = set()
        try:
            seen = search.add(content)
        except BackendUnavailableError as error:
            lacking = error
        left_out.add(replace(content, files=[name for name in content.files if name not in seen]))
        for case in _in_one_folder(content):
            found = True
            yield replace(case, name=(case.scan.relative_to(root).parent / case.name).as_posix())
    series = search.cases()
    yield from series
    yield from refused
    if found or refused or series:
        return
    if lacking is not None:
        raise lacking
    raise UsageError(
        f"{root}: contains no scans ({', '.join(SCAN_SUFFIXES)}) and no CT series; pass the folder of the scans"
    )


def _in_one_folder(content: FolderContent) -> Iterator[SeriesCase]:
    # Files that begin with a dot are metadata that macOS leaves beside the real files, also in the MSD archives.
    for file in (each for each in content.files if not each.startswith(".")):
        path = content.path / file
        if is_scan_name(file) and not (is_own_mask(path) or is_own_probabilities(path)):
            yield SeriesCase(_stem(file), path, None)
        # A broken link: it may have pointed to a folder of scans.
        elif path.suffix.lower() not in _NO_FOLDERS and path.is_symlink() and not os.path.exists(path):
            sentence = "is a broken link; restore its target or remove the link"
            yield SeriesCase(file, path, None, InputError(f"{path}: {sentence}", code="E_NOT_FOUND"))


def _in_list(path: Path, *, every_series: bool) -> Iterator[SeriesCase]:
    scans = [line for line in _lines(path) if line and not _is_comment(line, path.parent)]
    if not scans:
        raise UsageError(f"{path}: lists no scans; write one path per line")
    for number, scan in enumerate(scans, start=1):
        # A path that leaves the folder of the list would place its results outside the output folder.
        inside = not Path(scan).is_absolute() and ".." not in Path(scan).parts
        name = _stem(PurePosixPath(*Path(scan).parts).as_posix() if inside else Path(scan).name)
        if "\0" in scan or PurePosixPath(name).name in ("", ".."):
            sentence = "is not a file path; write one path per line, in UTF-8 or UTF-16"
            error = InputError(f"{path}: entry {number} {sentence}", code="E_NOT_A_FILE")
            yield SeriesCase(f"{path.name}:{number}", path, None, error)
        else:
            yield from _in_one_scan(name, path.parent / scan, every_series=every_series)


def _is_comment(line: str, folder: Path) -> bool:
    return line.startswith("#") and not os.path.lexists(folder / line)


def _lines(path: Path) -> list[str]:
    try:
        content = read_plain_file(path, _LONGEST_LIST, follow_links=True)
    except NotAPlainFileError as error:
        raise InputError(f"{path}: the list {error}; use a text file", code="E_NOT_A_FILE") from error
    except OSError as error:
        raise InputError(f"{path}: the list cannot be read ({error.strerror}); check the path") from error
    encoding = next((name for mark, name in _ENCODINGS if content.startswith(mark)), None)
    try:
        # File names need not be valid UTF-8.
        text = content.decode(encoding) if encoding else content.decode("utf-8-sig", errors="surrogateescape")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: has a {encoding} byte order mark, but is not valid {encoding}; save it as UTF-8"
        ) from error
    return [line.strip() for line in re.split(r"\r\n|\n|\r", text)]


def _stem(name: str) -> str:
    stem, suffix = split_suffix(name)
    return stem if suffix else _OF_DICOM.sub("", name)


def of_shard(cases: Iterable[Case], shard: Shard | None) -> list[Case]:
    """Return the cases of a shard, or all cases if it is None.

    Refused cases belong to every shard, because any shard may lack scans because of them.
    """
    return [case for case in cases if shard is None or case.refusal is not None or shard.has(case.name)]
