"""A picture archive takes DICOM results and files them by the study of the scan: a real Orthanc, as a child process."""

import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pydicom
import pytest
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind

from cascade_rt.results.dicom import write_report, write_rtstruct, write_segmentation
from tests.dicom_results import PATIENT, lopsided_mask, read_scan, segmented, write_scan

SECONDS_TO_START = 60


def free_port() -> int:
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[int]:
    """The DICOM port of an archive of its own."""
    program = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin")
    if program is None:
        pytest.skip("needs the program Orthanc")
    http, dicom, store = free_port(), free_port(), tmp_path / "store"
    store.mkdir()
    settings = {
        "StorageDirectory": str(store),
        "IndexDirectory": str(store),
        "HttpPort": http,
        "DicomPort": dicom,
        "HttpBindAddresses": ["127.0.0.1"],
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomAlwaysAllowFind": True,
        "Plugins": [],
    }
    (tmp_path / "orthanc.json").write_text(json.dumps(settings))
    with (tmp_path / "orthanc.log").open("wb") as log:
        process = subprocess.Popen([program, tmp_path / "orthanc.json"], stdout=log, stderr=log)
    try:
        wait_until_ready(process, http)
        yield dicom
    finally:
        # Its store is temporary, and it would wait for whoever is still connected.
        process.kill()
        process.wait()


def wait_until_ready(process: "subprocess.Popen[bytes]", port: int) -> None:
    end = time.monotonic() + SECONDS_TO_START
    while process.poll() is None and time.monotonic() < end:
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/system", timeout=5):
            return
        time.sleep(0.1)
    pytest.fail(f"Orthanc did not start (exit code {process.poll()})")


@contextmanager
def connected(entity: AE, port: int) -> Iterator[Association]:
    association = entity.associate("127.0.0.1", port, ae_title="ORTHANC")
    assert association.is_established
    try:
        yield association
    finally:
        association.release()


def send(port: int, paths: list[Path]) -> list[int]:
    """Store files, and return the status of each."""
    datasets = [pydicom.dcmread(path) for path in paths]
    entity = AE()
    for pair in sorted({(each.SOPClassUID, each.file_meta.TransferSyntaxUID) for each in datasets}):
        entity.add_requested_context(*pair)
    with connected(entity, port) as association:
        assert association.rejected_contexts == []
        return [int(association.send_c_store(dataset).Status) for dataset in datasets]


def series_of(port: int, study: str) -> list[str]:
    """The modalities of the series of a study."""
    query = pydicom.Dataset()
    query.QueryRetrieveLevel, query.StudyInstanceUID, query.PatientID = "SERIES", study, PATIENT["PatientID"]
    query.Modality = query.SeriesInstanceUID = ""
    entity = AE()
    entity.add_requested_context(StudyRootQueryRetrieveInformationModelFind)
    with connected(entity, port) as association:
        answers = association.send_c_find(query, StudyRootQueryRetrieveInformationModelFind)
        return sorted(answer.Modality for _, answer in answers if answer is not None)


def test_results_are_filed_in_the_study_of_the_scan(archive: int, tmp_path: Path) -> None:
    folder = write_scan(tmp_path / "scan")
    volume = read_scan(folder)
    segmentation = segmented(volume, lopsided_mask(volume.voxels.shape))
    write_segmentation(segmentation, tmp_path / "seg.dcm")
    write_report(segmentation, tmp_path / "sr.dcm")
    write_rtstruct(segmentation, tmp_path / "rtstruct.dcm")
    results = [tmp_path / name for name in ("seg.dcm", "sr.dcm", "rtstruct.dcm")]
    assert set(send(archive, [*folder.rglob("*.dcm"), *results])) == {0}
    assert series_of(archive, PATIENT["StudyInstanceUID"]) == ["CT", "RTSTRUCT", "SEG", "SR"]
