"""What comes with the package: all of it is packaged, and it stays small."""

import fnmatch
from pathlib import Path

import cascade_rt

PACKAGE = Path(cascade_rt.__file__).parent
ROOT = Path(__file__).parents[2]
LARGEST_BYTES = 90_000_000


def package_data() -> list[Path]:
    return [path for path in PACKAGE.rglob("*") if path.is_file() and path.suffix not in {".py", ".pyc"}]


def test_all_data_together_stay_below_90_megabytes() -> None:
    assert sum(path.stat().st_size for path in package_data()) < LARGEST_BYTES


def test_no_data_are_ignored_by_git_and_so_left_out_by_the_build() -> None:
    lines = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    patterns = [line.strip("/") for line in lines if line and not line.startswith("#")]
    parts = {part for path in package_data() for part in path.relative_to(PACKAGE).parts}
    assert [part for part in parts if any(fnmatch.fnmatch(part, pattern) for pattern in patterns)] == []
