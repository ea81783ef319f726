"""Find scans in files, folders and lists, decide where their results go, and select those of a shard."""

import codecs
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Self

from cascade_rt.common.folders import FolderContent, unreadable_folder, walk_folder
from cascade_rt.common.outputs import refuse_inputs
from cascade_rt.common.plain_file import NotAPlainFileError, read_plain_file
from cascade_rt.errors import InputError, UsageError
from cascade_rt.run.case import Case
from cascade_rt.run.cohort.left_out import OTHER_FORMATS, LeftOut
from cascade_rt.run.cohort.own_masks import is_own_mask
from cascade_rt.run.extra_results import ExtraResult
from cascade_rt.scans.names import MASKS_IN_WORDS, SCAN_SUFFIXES, is_mask_name, is_scan_name, split_suffix

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
    on_left_out: Callable[[Path, str], None] = lambda *_: None,
) -> list[Case]:
    """Find scans and decide where their results go.

    Args:
        sources: Scans, folders and lists. A folder is searched recursively for scans (see `SCAN_SUFFIXES`), except for
            hidden ones and for our own masks that lie beside their report. Links are followed, and each folder is
            entered once. A list is a `.txt` file with the path of one scan per line, relative to the list. A line that
            begins with # and does not name an existing file is a comment.
        output: The output folder, which mirrors the subfolders that the scans have in their source; None for the
            current folder. For a single scan it may be the mask file (see `MASK_SUFFIXES`).
        extras: What else to write for each scan.
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
    for name, scan, refusal in _named_scans(sources, folder, on_left_out):
        if name in cases:
            raise UsageError(
                f"{cases[name].scan} and {scan} would both become {_results(cases[name])}; rename one of them, "
                "or segment them separately"
            )
        cases[name] = Case.in_folder(scan, folder, name, extras=extras, refusal=refusal)
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


_Found = tuple[str, Path, InputError | None]
"""The name of a case, its scan, and why it cannot be computed (None if it can)."""


def _named_scans(sources: Sequence[Path], output: Path, on_left_out: Callable[[Path, str], None]) -> Iterator[_Found]:
    for source in sources:
        if not holds_many(source):
            yield _stem(source.name), source, None
        elif source.is_dir():
            left_out = LeftOut()
            yield from _in_folder(source, output, left_out)
            if str(left_out):
                on_left_out(source, str(left_out))
        else:
            yield from _in_list(source)


def holds_many(source: Path) -> bool:
    """Return whether a path is a folder or a list of scans. A folder named like a scan is a mistake, not a source."""
    return source.suffix.lower() == ".txt" or (source.is_dir() and not split_suffix(source.name)[1])


def _in_folder(root: Path, output: Path, left_out: LeftOut) -> Iterator[_Found]:
    if os.path.realpath(output) == os.path.realpath(root):
        raise UsageError(f"{output}: results would be mixed with the scans; choose another `output`")
    skipped, found, refused = os.path.realpath(output), False, []

    def refuse(error: OSError) -> None:
        if error.filename == os.fspath(root):
            raise unreadable_folder(error) from error
        folder = Path(error.filename)
        refused.append((f"{folder.relative_to(root).as_posix()}/", folder, unreadable_folder(error)))

    for content in walk_folder(root, refuse):
        here = content.path
        content.folders[:] = [
            each for each in content.folders if not each.startswith(".") and os.path.realpath(here / each) != skipped
        ]
        left_out.add(content)
        for name, scan, refusal in _in_one_folder(content):
            found = True
            yield (scan.relative_to(root).parent / name).as_posix(), scan, refusal
    yield from refused
    if not found and not refused:
        advice = "pass the folder of the scans, and convert DICOM with dcm2niix first"
        raise UsageError(f"{root}: contains no scans ({', '.join(SCAN_SUFFIXES)}); {advice}")


def _in_one_folder(content: FolderContent) -> Iterator[_Found]:
    # Files that begin with a dot are metadata that macOS leaves beside the real files, also in the MSD archives.
    for file in (each for each in content.files if not each.startswith(".")):
        path = content.path / file
        if is_scan_name(file) and not is_own_mask(path):
            yield _stem(file), path, None
        # A broken link: it may have pointed to a folder of scans.
        elif path.suffix.lower() not in _NO_FOLDERS and path.is_symlink() and not os.path.exists(path):
            sentence = "is a broken link; restore its target or remove the link"
            yield file, path, InputError(f"{path}: {sentence}", code="E_NOT_FOUND")


def _in_list(path: Path) -> Iterator[_Found]:
    scans = [line for line in _lines(path) if line and not _is_comment(line, path.parent)]
    if not scans:
        raise UsageError(f"{path}: lists no scans; write one path per line")
    for number, scan in enumerate(scans, start=1):
        # A path that leaves the folder of the list would place its results outside the output folder.
        inside = not Path(scan).is_absolute() and ".." not in Path(scan).parts
        name = _stem(PurePosixPath(*Path(scan).parts).as_posix() if inside else Path(scan).name)
        if "\0" in scan or PurePosixPath(name).name in ("", ".."):
            sentence = "is not a file path; write one path per line, in UTF-8 or UTF-16"
            yield f"{path.name}:{number}", path, InputError(f"{path}: entry {number} {sentence}", code="E_NOT_A_FILE")
        else:
            yield name, path.parent / scan, None


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
    return split_suffix(name)[0] if split_suffix(name)[1] else name


def of_shard(cases: Iterable[Case], shard: Shard | None) -> list[Case]:
    """Return the cases of a shard, or all cases if it is None.

    Refused cases belong to every shard, because any shard may lack scans because of them.
    """
    return [case for case in cases if shard is None or case.refusal is not None or shard.has(case.name)]
