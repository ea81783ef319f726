"""`cascade-rt bundle`: from a new key to a bundle that runs only if it is signed."""

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner, Result

from cascade_rt.bundles.bundle import Bundle, embedded_bundle_path, read_bundle
from cascade_rt_cli.main import main
from tests.volume_files import noisy_tissue


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [*map(str, arguments)], catch_exceptions=False)


@pytest.fixture
def here(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a bundle, a key pair and a scan."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(bundle.path, "mine")
    assert run("bundle", "keygen", "key.pem").exit_code == 0
    nib.save(nib.Nifti1Image(noisy_tissue(64, 64, 2), np.diag([-0.8, -0.8, 2.5, 1])), "scan.nii.gz")
    return tmp_path


@pytest.mark.usefixtures("here")
def test_a_signed_bundle_is_verified_and_runs() -> None:
    signed = run("bundle", "sign", "mine", "--key", "key.pem")
    assert (signed.exit_code, signed.stdout[:20]) == (0, "mine: signed, sha256")
    verified = run("bundle", "verify", "mine", "--public-key", "key.pub.pem")
    assert verified.exit_code == 0
    assert "6 files as exported" in verified.stdout
    assert "signature: by the key key.pub.pem" in verified.stdout
    done = run("infer", "scan.nii.gz", "--bundle", "mine", "--require-signature", "key.pub.pem", "-o", "out")
    assert done.exit_code == 0


def test_an_unsigned_bundle_is_refused_if_a_signature_is_required(here: Path) -> None:
    done = run("infer", "scan.nii.gz", "--bundle", "mine", "--require-signature", "key.pub.pem", "-o", "out")
    assert (done.exit_code, "error[E_SIGNATURE]: mine: is not signed, " in done.stderr) == (5, True)
    assert not (here / "out").exists()


@pytest.mark.usefixtures("here")
def test_the_embedded_bundle_is_not_signed() -> None:
    assert run("infer", "scan.nii.gz", "--require-signature", "key.pub.pem", "-o", "out").exit_code == 5


def test_verify_without_a_key_checks_the_files_and_says_so(here: Path) -> None:
    assert "signature: not checked" in run("bundle", "verify", "mine").stdout
    (here / "mine" / "golden.bin").write_bytes(b"")
    assert run("bundle", "verify", "mine").exit_code == 5


@pytest.mark.usefixtures("here")
def test_a_key_is_not_made_twice() -> None:
    assert run("bundle", "keygen", "key.pem").exit_code == 8


def test_a_name_is_an_embedded_bundle_unless_a_local_bundle_has_it(bundle: Bundle, here: Path) -> None:
    embedded = read_bundle(embedded_bundle_path("phantom"))
    assert f"phantom_bundle: 6 files as exported, sha256 {embedded.sha256}" in run("bundle", "verify", "phantom").stdout
    assert json.loads(run("inspect", "phantom", "--json").stdout)["name"] == "phantom_bundle"
    assert "Bundle phantom_bundle: " in run("infer", "scan.nii.gz", "--bundle", "phantom", "-o", "out").stdout
    (here / "mine").rename("phantom")
    assert f"phantom: 6 files as exported, sha256 {bundle.sha256}" in run("bundle", "verify", "phantom").stdout


def test_a_name_after_a_dot_slash_is_a_folder(here: Path) -> None:
    missing = run("inspect", "./phantom")
    assert (missing.exit_code, "phantom: is not a bundle" in missing.stderr) == (5, True)
