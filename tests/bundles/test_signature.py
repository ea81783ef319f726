"""A bundle is taken as its owner signed it, or not at all."""

import shutil
import subprocess
from pathlib import Path

import pytest

from cascade_rt.bundles.bundle import Bundle, read_bundle, sign_bundle
from cascade_rt.bundles.signature import generate_key_pair
from cascade_rt.errors import BackendUnavailableError, BundleError, OutputExistsError, UsageError
from cascade_rt.run.cascade import open_cascade
from tests.hidden_packages import hide


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    generate_key_pair(tmp_path / "key.pem", tmp_path / "key.pub.pem")
    return tmp_path / "key.pem", tmp_path / "key.pub.pem"


@pytest.fixture
def signed(bundle: Bundle, tmp_path: Path, keys: tuple[Path, Path]) -> Path:
    path = Path(shutil.copytree(bundle.path, tmp_path / "bundle"))
    sign_bundle(path, keys[0])
    return path


def refused(path: Path, public_key: Path, complaint: str) -> None:
    with pytest.raises(BundleError, match=complaint) as caught:
        read_bundle(path, public_key)
    assert caught.value.code == "E_SIGNATURE"


def test_a_signed_bundle_is_taken(signed: Path, keys: tuple[Path, Path]) -> None:
    open_cascade(signed, "onnxruntime", public_key=keys[1]).close()


def test_the_signature_is_one_that_others_can_check(signed: Path, keys: tuple[Path, Path]) -> None:
    tool = shutil.which("openssl")
    if tool is None:
        pytest.skip("needs openssl")
    run = [tool, "pkeyutl", "-verify", "-pubin", "-inkey", str(keys[1]), "-rawin"]
    subprocess.run([*run, "-in", signed / "manifest.json", "-sigfile", signed / "manifest.json.sig"], check=True)


def test_the_private_key_is_for_its_owner_alone(keys: tuple[Path, Path]) -> None:
    assert keys[0].stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", ["key.pem", "key.pub.pem"])
def test_a_key_is_never_replaced(tmp_path: Path, keys: tuple[Path, Path], name: str) -> None:
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(tmp_path / name, other / name)
    with pytest.raises(OutputExistsError, match="keys are never replaced"):
        generate_key_pair(other / "key.pem", other / "key.pub.pem")
    assert [path.name for path in other.iterdir()] == [name]


def test_a_bundle_without_signature_is_refused(bundle: Bundle, keys: tuple[Path, Path]) -> None:
    refused(bundle.path, keys[1], "is not signed, but a signature is required")


def test_a_signature_by_another_key_is_refused(signed: Path, tmp_path: Path) -> None:
    generate_key_pair(tmp_path / "b.pem", tmp_path / "b.pub.pem")
    refused(signed, tmp_path / "b.pub.pem", r"is not a signature of this manifest by the key b\.pub\.pem")


def test_a_changed_manifest_is_refused_before_it_is_parsed(signed: Path, keys: tuple[Path, Path]) -> None:
    (signed / "manifest.json").write_text("{ not JSON at all")
    refused(signed, keys[1], "is not a signature of this manifest")


def test_a_changed_file_is_refused_although_the_signature_holds(signed: Path, keys: tuple[Path, Path]) -> None:
    content = (signed / "stage1_fp32.onnx").read_bytes()
    (signed / "stage1_fp32.onnx").write_bytes(content[:-1] + b"x")
    with pytest.raises(BundleError, match=r"stage1_fp32\.onnx: is not the file that was exported"):
        read_bundle(signed, keys[1])


@pytest.mark.parametrize("content", [b"", b"x" * 63, b"x" * 64, b"x" * 65])
def test_garbage_for_a_signature_is_refused(signed: Path, keys: tuple[Path, Path], content: bytes) -> None:
    (signed / "manifest.json.sig").write_bytes(content)
    refused(signed, keys[1], r"manifest\.json\.sig: ")


def test_a_bundle_that_would_be_refused_is_not_signed(bundle: Bundle, tmp_path: Path, keys: tuple[Path, Path]) -> None:
    path = Path(shutil.copytree(bundle.path, tmp_path / "bad"))
    (path / "golden.bin").unlink()
    with pytest.raises(BundleError, match="is missing"):
        sign_bundle(path, keys[0])
    assert not (path / "manifest.json.sig").exists()


@pytest.mark.parametrize("content", [b"", b"hello", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"])
def test_a_file_other_than_a_key_is_refused(signed: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "no.pem").write_bytes(content)
    with pytest.raises(UsageError, match=r"no\.pem: is not a public key"):
        read_bundle(signed, tmp_path / "no.pem")
    with pytest.raises(UsageError, match=r"no\.pem: is not an unencrypted private key"):
        sign_bundle(signed, tmp_path / "no.pem")


def test_a_private_key_is_not_a_public_key(signed: Path, keys: tuple[Path, Path]) -> None:
    with pytest.raises(UsageError, match="is not a public key"):
        read_bundle(signed, keys[0])


def test_keys_of_another_kind_are_refused(signed: Path, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    key = X25519PrivateKey.generate()
    (tmp_path / "x.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (tmp_path / "x.pub.pem").write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    with pytest.raises(UsageError, match="is not an Ed25519 key"):
        sign_bundle(signed, tmp_path / "x.pem")
    with pytest.raises(UsageError, match="is not an Ed25519 key"):
        read_bundle(signed, tmp_path / "x.pub.pem")


def test_without_the_package_a_sentence_says_how_to_install_it(
    signed: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    hide(monkeypatch, "cryptography")
    with pytest.raises(BackendUnavailableError, match=r"a signature needs .*pip install 'cryptography>="):
        read_bundle(signed, keys[1])
