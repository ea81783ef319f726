"""Bundle signatures: Ed25519 over the bytes of the manifest, which contains the hashes of all other files.

The signature is a 64-byte file next to the manifest, `manifest.json.sig`. Keys are PEM files compatible with OpenSSL,
so that a signature can also be checked without this code:

    openssl pkeyutl -verify -pubin -inkey PUBLIC.pem -rawin -in manifest.json -sigfile manifest.json.sig
"""

import os
from pathlib import Path
from typing import Any

from cascade_rt.common.atomic import write_bytes
from cascade_rt.common.packages import import_package
from cascade_rt.common.plain_file import COPY_THE_FOLDER, NotAPlainFileError, read_plain_file
from cascade_rt.errors import BundleError, OutputError, OutputExistsError, UsageError

SIGNATURE_BYTES = 64
MAX_KEY_BYTES = 1 << 14


def generate_key_pair(private_key: Path, public_key: Path) -> None:
    """Generate a key pair. The private key is readable by its owner only (mode 0600).

    Raises:
        OutputExistsError: One of the files exists; a key is never replaced.
        OutputError: A file cannot be written.
        BackendUnavailableError: The package `cryptography` is not installed.
    """
    _cryptography()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    key = Ed25519PrivateKey.generate()
    if os.path.lexists(public_key):
        raise OutputExistsError(f"{public_key}: already exists, and keys are never replaced; choose another file")
    _write_secret(private_key, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    write_bytes(
        public_key, key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), overwrite=False
    )


def sign(manifest: bytes, private_key: Path) -> bytes:
    """Sign a manifest.

    Raises:
        UsageError: The file is not an Ed25519 private key without a password.
        BackendUnavailableError: The package `cryptography` is not installed.
    """
    return bytes(_load_private(private_key).sign(manifest))


def check_signature(manifest: bytes, signature_path: Path, public_key: Path) -> None:
    """Reject a manifest that was not signed with the given key.

    Args:
        manifest: The same bytes that are parsed afterwards.
        signature_path: The signature file.
        public_key: The trusted key.

    Raises:
        BundleError: The signature is missing, or is not a signature of this manifest by this key (`E_SIGNATURE`).
        UsageError: The file is not an Ed25519 public key.
        BackendUnavailableError: The package `cryptography` is not installed.
    """
    key = _load_public(public_key)
    from cryptography.exceptions import InvalidSignature

    try:
        signature = read_plain_file(signature_path, SIGNATURE_BYTES)
    except FileNotFoundError as error:
        raise BundleError(
            f"{signature_path.parent}: is not signed, but a signature is required; "
            "sign it with: cascade-rt bundle sign, or get the bundle from its signer",
            code="E_SIGNATURE",
        ) from error
    except NotAPlainFileError as error:
        raise BundleError(f"{signature_path}: {error}; {COPY_THE_FOLDER}", code="E_SIGNATURE") from error
    except OSError as error:
        raise BundleError(f"{signature_path}: cannot be read ({error.strerror}); check its permissions") from error
    try:
        key.verify(signature, manifest)
    except InvalidSignature as error:
        raise BundleError(
            f"{signature_path}: is not a signature of this manifest by the key {public_key.name}; "
            "do not use the bundle, get it again from its signer",
            code="E_SIGNATURE",
        ) from error


def _cryptography() -> Any:
    return import_package("cryptography", needed_by="a signature", extra="sign")


def _load_private(path: Path) -> Any:
    _cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(_read_key(path), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise UsageError(
            f"{path}: is not an unencrypted private key; create one with: cascade-rt bundle keygen"
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageError(f"{path}: is not an Ed25519 key; create one with: cascade-rt bundle keygen")
    return key


def _load_public(path: Path) -> Any:
    _cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(_read_key(path))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UsageError(f"{path}: is not a public key; pass the .pub.pem from: cascade-rt bundle keygen") from error
    if not isinstance(key, Ed25519PublicKey):
        raise UsageError(f"{path}: is not an Ed25519 key; pass the .pub.pem from: cascade-rt bundle keygen")
    return key


def _read_key(path: Path) -> bytes:
    # The key is the user's own file, so a symbolic link is fine.
    try:
        return read_plain_file(path.resolve(), MAX_KEY_BYTES)
    except NotAPlainFileError as error:
        raise UsageError(f"{path}: {error}, so it is not a key; pass a PEM file") from error
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); pass a PEM file") from error


def _write_secret(path: Path, content: bytes) -> None:
    """Write a new file that is readable by its owner only from the moment it is created."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError as error:
        raise OutputExistsError(f"{path}: already exists, and keys are never replaced; choose another file") from error
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror}); choose another file") from error
