"""`cascade-rt bundle`: verify and sign bundles."""

from pathlib import Path

import click

from cascade_rt_cli.options import BUNDLE, PATH


@click.group()
def bundle() -> None:
    """Check a bundle, sign it, make keys to sign with.

    A bundle's hashes tell that nothing in it has changed; they do not tell who made it. A signature does, for those who
    got the public key in another way than the bundle.

    \b
    Examples:
      cascade-rt bundle keygen hospital.pem
      cascade-rt bundle sign bundles/first --key hospital.pem
      cascade-rt bundle verify bundles/first --public-key hospital.pub.pem
      cascade-rt infer scan.nii.gz --bundle bundles/first --require-signature hospital.pub.pem
    """  # noqa: D301


@bundle.command()
@click.argument("key", type=PATH, metavar="KEY.pem")
def keygen(key: Path) -> None:
    """Make an Ed25519 key pair: KEY.pem, for you alone (mode 0600), and KEY.pub.pem, for everybody."""
    from cascade_rt.bundles.signature import generate_key_pair
    from cascade_rt_cli.console import printable, shown

    public_key = key.with_name(f"{key.stem}.pub.pem")
    generate_key_pair(key, public_key)
    click.echo(f"{printable(shown(key))}: keep it secret")
    click.echo(f"{printable(shown(public_key))}: give it to who runs the bundle")


@bundle.command()
@click.argument("bundle_path", type=PATH, metavar="BUNDLE")
@click.option("--key", type=PATH, required=True, metavar="KEY.pem", help="Ed25519 private key, without a password.")
def sign(bundle_path: Path, key: Path) -> None:
    """Check all of BUNDLE, and sign its manifest: the signature is manifest.json.sig beside it."""
    from cascade_rt.bundles.bundle import sign_bundle
    from cascade_rt_cli.console import printable, shown

    signed = sign_bundle(bundle_path, key)
    click.echo(f"{printable(shown(bundle_path))}: signed, sha256 {signed.sha256}")


@bundle.command()
@click.argument("bundle_path", type=BUNDLE, metavar="BUNDLE")
@click.option("--public-key", type=PATH, metavar="PUB.pem", help="Key whose owner must have signed it.")
def verify(bundle_path: Path, public_key: Path | None) -> None:
    """Check the signature of BUNDLE, the hash of each file, and what its graphs hold; run nothing.

    The exit code is 5 where it is refused.
    """
    from cascade_rt.bundles.bundle import read_bundle
    from cascade_rt_cli.console import printable, shown

    opened = read_bundle(bundle_path, public_key)
    click.echo(
        f"{printable(shown(bundle_path))}: {len(opened.manifest.files)} files as exported, sha256 {opened.sha256}"
    )
    click.echo(
        "signature: not asked for" if public_key is None else f"signature: by the key {printable(public_key.name)}"
    )
