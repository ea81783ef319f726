"""From scan files to their results: one and many, whole and broken, and what is done at the same time."""

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from cascade_rt.engines.fake import FakeEngine
from cascade_rt.errors import CascadeError, EngineError, InputError, OutputError, OutputExistsError
from cascade_rt.results.segmentation import Segmentation
from cascade_rt.run.cascade import Cascade
from cascade_rt.run.case import Case
from cascade_rt.run.cohort.cases import plan_cases
from cascade_rt.run.inference import RunOptions, infer_file, infer_files
from cascade_rt.scans.search import SearchOptions
from tests.cohort_files import AFFINE, HU, fake_cascade, save_labels, truncate

LABELS = np.zeros((12, 64, 64), dtype=np.uint8)
LABELS[3:9, 20:40, 20:40] = 1
LABELS[5:7, 25:30, 25:30] = 2


def scans(folder: Path, *names: str) -> list[Path]:
    return [save_labels(folder / f"{name}.nii.gz", HU[LABELS]) for name in names]


def cases(folder: Path, *names: str) -> list[Case]:
    return plan_cases(scans(folder, *names), folder / "out")


def infer_all(cascade: Cascade, planned: list[Case], **options: object) -> dict[str, Segmentation | CascadeError]:
    return {
        case.scan.name.removesuffix(".nii.gz"): outcome for case, outcome in infer_files(cascade, planned, **options)
    }


def written(case: Case) -> np.ndarray:
    return np.asarray(nib.load(case.mask).dataobj).T


@pytest.fixture(autouse=True)
def threads_end() -> Iterator[None]:
    """No thread outlives its run."""
    before = threading.active_count()
    yield
    assert threading.active_count() == before


def test_each_scan_has_its_mask_and_report(tmp_path: Path) -> None:
    planned = cases(tmp_path, "a", "b", "c")
    outcomes = infer_all(fake_cascade(), planned)
    assert list(outcomes) == ["a", "b", "c"]
    for case in planned:
        np.testing.assert_array_equal(written(case), LABELS)
        assert json.loads(case.report.read_text())["case"] == case.scan.name.removesuffix(".nii.gz")


def test_one_scan_is_the_same_code(tmp_path: Path) -> None:
    one, many = cases(tmp_path / "one", "a")[0], cases(tmp_path / "many", "a", "b")
    infer_file(fake_cascade(), one)
    infer_all(fake_cascade(), many)
    assert one.mask.read_bytes() == many[0].mask.read_bytes()


def test_no_scans_have_no_outcomes() -> None:
    assert list(infer_files(fake_cascade(), [])) == []


@pytest.mark.parametrize("broken", [0, 1, 2])
def test_a_scan_that_cannot_be_read_does_not_harm_the_others(tmp_path: Path, broken: int) -> None:
    planned = cases(tmp_path, "a", "b", "c")
    truncate(planned[broken].scan)
    outcomes = list(infer_all(fake_cascade(), planned).values())
    assert [isinstance(outcome, InputError) for outcome in outcomes] == [index == broken for index in range(3)]
    assert [case.mask.exists() for case in planned] == [index != broken for index in range(3)]


def test_a_scan_whose_checksum_is_wrong_leaves_nothing(tmp_path: Path) -> None:
    (case,) = cases(tmp_path, "a")
    content = bytearray(case.scan.read_bytes())
    content[-8] ^= 1
    case.scan.write_bytes(content)
    with pytest.raises(InputError) as caught:
        infer_file(fake_cascade(), case)
    assert (caught.value.code, case.mask.parent.exists()) == ("E_CORRUPT", False)


def test_an_engine_that_fails_on_one_scan_does_not_harm_the_others(tmp_path: Path) -> None:
    cascade, calls = fake_cascade(), []

    def fail_once(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        calls.append(1)
        outputs = cascade.engines.stage1.run(inputs)
        return {name: array * np.nan for name, array in outputs.items()} if len(calls) == 2 else outputs

    failing = Cascade(cascade.bundle, replace(cascade.engines, stage1=FakeEngine("stage1", fail_once)))
    planned = cases(tmp_path, "a", "b")
    outcomes = infer_all(failing, planned)
    assert isinstance(outcomes["a"], EngineError)
    np.testing.assert_array_equal(written(planned[1]), LABELS)


def test_an_existing_result_fails_only_its_scan(tmp_path: Path) -> None:
    planned = cases(tmp_path, "a", "b")
    planned[0].mask.parent.mkdir()
    planned[0].mask.write_text("mine")
    outcomes = infer_all(fake_cascade(), planned)
    assert isinstance(outcomes["a"], OutputExistsError)
    assert planned[0].mask.read_text() == "mine"
    assert planned[1].mask.exists()


def test_a_report_that_cannot_be_written_takes_its_own_mask_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Segmentation.save_report

    def refuse_a(self: Segmentation, path: Path, *, overwrite: bool) -> None:
        if self.volume.name == "a":
            raise OutputError("the disk is full")
        original(self, path, overwrite=overwrite)

    monkeypatch.setattr(Segmentation, "save_report", refuse_a)
    planned = cases(tmp_path, "a", "b")
    outcomes = infer_all(fake_cascade(), planned)
    assert isinstance(outcomes["a"], OutputError)
    assert [path.name for path in sorted(planned[0].mask.parent.iterdir())] == ["b_seg.json", "b_seg.nii.gz"]


def test_a_bug_is_raised_and_keeps_its_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(*_: object, **__: object) -> None:
        raise ZeroDivisionError("our bug")

    monkeypatch.setattr(Segmentation, "save_report", bug)
    planned = cases(tmp_path, "a", "b")
    with pytest.raises(ZeroDivisionError, match="our bug"):
        infer_all(fake_cascade(), planned)
    assert not planned[0].mask.exists()


def test_ctrl_c_leaves_no_unfinished_result(tmp_path: Path) -> None:
    planned = cases(tmp_path, "a", "b", "c")

    def interrupt(count: int) -> None:
        if planned[0].mask.exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        for _ in infer_files(fake_cascade(), planned, on_slices=interrupt):
            pass
    assert not planned[-1].mask.exists()
    assert list(tmp_path.rglob("*.tmp")) == []


def test_a_caller_who_stops_early_ends_the_threads(tmp_path: Path) -> None:
    outcomes = infer_files(fake_cascade(), cases(tmp_path, "a", "b", "c", "d"))
    next(outcomes)
    outcomes.close()  # type: ignore[attr-defined]


def test_the_next_scan_is_read_while_one_is_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import cascade_rt.run.inference as inference

    opened, original = threading.Semaphore(0), inference.open_scan

    def open_and_tell(*arguments: object) -> object:
        opened.release()
        return original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(inference, "open_scan", open_and_tell)
    turns: list[bool] = []

    def two_are_open(scan: object) -> None:
        if not turns:
            turns.append(opened.acquire(timeout=60) and opened.acquire(timeout=60))

    infer_all(fake_cascade(), cases(tmp_path, "a", "b"), on_open=two_are_open)
    assert turns == [True]


def test_a_scan_is_written_while_the_next_one_is_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    computing, original = threading.Event(), Segmentation.save
    waited: list[bool] = []

    def save_later(self: Segmentation, path: Path, *, overwrite: bool) -> None:
        if self.volume.name == "a":
            waited.append(computing.wait(timeout=60))
        original(self, path, overwrite=overwrite)

    monkeypatch.setattr(Segmentation, "save", save_later)
    infer_all(
        fake_cascade(), cases(tmp_path, "a", "b"), on_open=lambda scan: (scan.name == "b" and computing.set()) or None
    )
    assert waited == [True]


def test_only_one_scan_is_read_ahead(tmp_path: Path) -> None:
    taken: list[str] = []
    planned = cases(tmp_path, "a", "b", "c", "d")

    def take() -> Iterator[Case]:
        for case in planned:
            taken.append(case.scan.name[0])
            yield case

    ahead: list[str] = []
    list(infer_files(fake_cascade(), take(), on_open=lambda _: ahead.append("".join(taken))))
    assert ahead == ["ab", "abc", "abcd", "abcd"]


def test_scans_are_opened_with_their_slices_known_in_the_order_of_the_jobs(tmp_path: Path) -> None:
    opened: list[tuple[str, int]] = []
    infer_all(
        fake_cascade(), cases(tmp_path, "a", "b"), on_open=lambda scan: opened.append((scan.name, len(scan.voxels)))
    )
    assert opened == [("a", 12), ("b", 12)]


def test_a_scan_stored_from_the_head_has_the_same_mask(tmp_path: Path) -> None:
    flipped = AFFINE @ np.diag([1.0, 1.0, -1.0, 1.0])
    scan = save_labels(tmp_path / "a.nii.gz", HU[LABELS[::-1]], flipped)
    (case,) = plan_cases([scan], tmp_path / "out")
    found = infer_file(fake_cascade(), case)
    np.testing.assert_array_equal(found.mask, LABELS)
    np.testing.assert_array_equal(written(case), LABELS[::-1])


def test_the_search_asked_for_is_made_and_reported(tmp_path: Path) -> None:
    (case,) = cases(tmp_path, "a")
    infer_file(fake_cascade(), case, RunOptions(search=SearchOptions(3, body_box=True)))
    report = json.loads(case.report.read_text())
    assert report["search"]["first_every"] == 3
    assert {warning["code"] for warning in report["warnings"]} >= {"W_BODY_BOX"}


def test_every_step_and_the_whole_are_timed(tmp_path: Path) -> None:
    found = infer_file(fake_cascade(), cases(tmp_path, "a")[0])
    assert set(found.timings) == {"load", "preprocess", "stage1", "crop", "stage2", "paste", "measure", "save"}
    assert found.wall_s >= sum(found.timings.values())


def test_the_report_has_the_hash_of_the_bytes_read_if_the_scan_is_replaced(tmp_path: Path) -> None:
    (case,) = cases(tmp_path, "a")
    read, other = case.scan.read_bytes(), save_labels(tmp_path / "other.nii.gz", HU[LABELS[:, ::-1]])

    def replace_it(_: int) -> None:
        if other.exists():
            other.replace(case.scan)

    infer_file(fake_cascade(), case, on_slices=replace_it)
    assert case.scan.read_bytes() != read
    np.testing.assert_array_equal(written(case), LABELS)
    found = {"sha256": hashlib.sha256(read).hexdigest(), "bytes": len(read)}
    assert json.loads(case.report.read_text())["input"] == found


def test_a_result_that_is_a_broken_link_is_reported_before_reading_the_scan(tmp_path: Path) -> None:
    (case,) = cases(tmp_path, "a")
    case.mask.parent.mkdir()
    case.mask.symlink_to("nowhere")
    opened: list[object] = []
    with pytest.raises(OutputExistsError):
        infer_file(fake_cascade(), case, on_open=opened.append)
    assert opened == []
