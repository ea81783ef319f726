"""What a scan says of its patient stays in the scan."""

import base64
import gzip
import json
import os
import re
import stat
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner, Result

from cascade_rt.bundles.bundle import Bundle
from cascade_rt.engines import Engines
from cascade_rt.engines.fake import organ_by_hu, tumor_by_salient
from cascade_rt_cli.main import main
from tests.volume_files import noisy_tissue

PATIENT = b"DOERING^JOHN"
WORDS = ("DOERING", "JOHN", "19551224", "MRN12345", "Ward7")


@pytest.fixture
def scan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A scan whose header, extensions and folder name its patient; the working folder is elsewhere."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    folder = tmp_path / "DOERING_JOHN_19551224" / "Ward7"
    folder.mkdir(parents=True)
    voxels = noisy_tissue(64, 64, 3)
    image = nib.Nifti1Image(voxels, np.diag([-0.8, -0.8, 2.5, 1.0]))
    for field in ("descrip", "aux_file", "intent_name"):
        image.header[field] = PATIENT
    image.header["db_name"] = b"MRN12345"
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"DOERING^JOHN 19551224 MRN12345"))
    nib.save(image, folder / "scan.nii.gz")
    with gzip.open(folder / "scan.nii.gz") as file:
        assert PATIENT in file.read(1000)
    return folder / "scan.nii.gz"


@pytest.fixture
def engines_without_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    def open_engines(*_: object) -> Engines:
        return Engines(organ_by_hu(50.0, (-100.0, 240.0)), tumor_by_salient(0.75))

    monkeypatch.setattr("cascade_rt.run.cascade.open_engines", open_engines)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [*map(str, arguments)], catch_exceptions=False)


def words_in(content: bytes) -> list[str]:
    return [word for word in WORDS if word.encode() in content or word.encode("utf-16-le") in content]


def parts_of(page: bytes) -> list[bytes]:
    """Return a page without its base64, in which any three letters occur by chance, and that decoded.

    The library, whose hash another test checks, is left out.
    """
    picture = re.findall(rb"(?<=base64,)[^\"]+", page)
    blocks = re.findall(rb'<script type="text/plain" id="([^"]+)">([^<]+)', page)
    assert {b"header", b"mask", b"part-0"} <= {name for name, _ in blocks}
    decoded = [
        base64.b64decode(block) for block in [*picture, *(block for name, block in blocks if name != b"library")]
    ]
    for block in [*picture, *(block for _, block in blocks)]:
        page = page.replace(block, b"")
    return [page, *(gzip.decompress(part) if part[:2] == b"\x1f\x8b" else part for part in decoded)]


def test_nothing_of_the_patient_is_in_any_result_or_message(bundle: Bundle, scan: Path) -> None:
    done = run("infer", scan, "--bundle", bundle.path, "-o", scan.parent / "out", "--preview", "--report")
    assert done.exit_code == 0
    assert words_in(done.stdout.encode() + done.stderr.encode()) == []
    results = sorted((scan.parent / "out").iterdir())
    assert [path.name for path in results] == ["scan_seg.html", "scan_seg.json", "scan_seg.nii.gz", "scan_seg.png"]
    for path in results:
        content = path.read_bytes()
        if path.suffix == ".html":
            content, *embedded = parts_of(content)
            assert [word for part in embedded for word in words_in(part)] == []
        assert words_in(content) == []
        if path.suffix == ".gz":
            # Flags of the gzip header: neither a file name nor a comment.
            assert content[3] == 0
            assert words_in(gzip.decompress(content)) == []


def test_the_report_has_no_folder_and_no_user(bundle: Bundle, scan: Path) -> None:
    run("infer", scan, "--bundle", bundle.path, "-o", "out")
    text = Path("out/scan_seg.json").read_text()
    assert json.loads(text)["case"] == "scan"
    for secret in (str(scan.parent), str(Path.cwd()), str(Path.home()) + os.sep, os.uname().nodename):
        assert secret not in text


@pytest.mark.parametrize(
    "options",
    [
        ("-o", "nowhere.mhd"),
        ("--bundle", "DOERING_JOHN_no_bundle"),
        ("--backend", "tensorrt"),
    ],
)
def test_refusals_name_no_folder_outside_the_working_folder(scan: Path, options: tuple[str, str]) -> None:
    done = run("infer", scan, options[0], scan.parent / options[1] if options[0] != "--backend" else options[1])
    assert done.exit_code not in (0, 1)
    assert str(scan.parent) not in done.stderr
    assert "19551224" not in done.stderr


@pytest.mark.parametrize("damage", [b"", b"not a scan at all", b"\x1f\x8b\x08\x00"])
def test_a_scan_that_cannot_be_used_is_named_without_its_folder(scan: Path, damage: bytes) -> None:
    scan.write_bytes(damage)
    done = run("infer", scan, "-o", "out")
    assert done.exit_code == 4
    assert "scan.nii.gz" in done.stderr
    assert words_in(done.stderr.encode()) == []


def test_paths_are_printed_in_full_if_requested(bundle: Bundle, scan: Path) -> None:
    assert f"{scan}: " in run("--log-paths", "infer", scan, "--bundle", bundle.path, "-o", "out").stdout
    scan.write_bytes(b"")
    assert f"cascade-rt: error[E_EMPTY]: {scan}: " in run("--log-paths", "infer", scan, "-o", "other").stderr


def test_results_have_the_modes_that_the_umask_allows(bundle: Bundle, scan: Path) -> None:
    """They belong to the folder of results, whose owner decides who reads them; nothing is executable."""
    before = os.umask(0o027)
    try:
        run("infer", scan, "--bundle", bundle.path, "-o", "out")
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in Path("out").iterdir()} == {0o640}


def test_no_module_can_open_a_connection() -> None:
    """No telemetry, no update check, nothing fetched: the packages import nothing that speaks to a network."""
    root = Path(__file__).parents[2]
    sources = [path for folder in ("cascade_rt", "export", "cli") for path in (root / folder).rglob("*.py")]
    speaks = r"(?:import |from |import_module\([\"'])(?:socket|urllib|http|requests|httpx|aiohttp|ftplib|smtplib)\b"
    assert [path.name for path in sources if re.search(speaks, path.read_text(encoding="utf-8"))] == []


@pytest.mark.usefixtures("engines_without_networks")
@pytest.mark.parametrize("form", ["text", "json"])
def test_the_folders_that_a_list_names_are_not_printed(scan: Path, form: str) -> None:
    scan.write_bytes(b"")
    Path("list.txt").write_text(f"{scan}\n{scan.parent}/missing scan.nii.gz\n")
    done = run("infer", "list.txt", "-o", scan.parent / "out", "--log-format", form)
    assert done.exit_code == 3
    assert "missing scan" in done.stdout + done.stderr
    assert words_in(done.stdout.encode() + done.stderr.encode()) == []
    for written in ("journal.jsonl", "results.csv"):
        assert words_in((scan.parent / "out" / written).read_bytes()) == []


@pytest.mark.usefixtures("engines_without_networks")
def test_names_cannot_command_the_terminal(scan: Path) -> None:
    Path("in").mkdir()
    for name in ("\x1b[2Jone.nii.gz", "\x9b31mtwo.nii", "\u202egz.iin.three.nii"):
        Path("in", name).write_bytes(b"x" * 400)
    done = run("infer", "in", "-o", "out")
    assert done.exit_code == 3
    printed = done.stdout + done.stderr
    assert "?[2Jone" in printed
    assert [letter for letter in printed if not letter.isprintable() and letter != "\n"] == []
