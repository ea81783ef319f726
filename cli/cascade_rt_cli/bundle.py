"""`cascade-rt bundle`: verify and sign bundles. `cascade-rt inspect`: show what a bundle is."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from cascade_rt.bundles.bundle import Bundle, Manifest, default_bundle_path, read_bundle, sign_bundle
from cascade_rt_cli.console import print_rows, results_console
from cascade_rt_cli.messages import printable, shown
from cascade_rt_cli.options import BUNDLE, PATH


@click.group()
def bundle() -> None:
    """Verify and sign bundles, and make signing keys.

    A bundle's hashes show that nothing in it has changed, but not who made it. A signature shows who made it, if
    the public key did not come with the bundle.

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
    """Make an Ed25519 key pair: KEY.pem, to keep secret (mode 0600), and KEY.pub.pem, to share."""
    from cascade_rt.bundles.signature import generate_key_pair

    public_key = key.with_name(f"{key.stem}.pub.pem")
    generate_key_pair(key, public_key)
    click.echo(f"{printable(shown(key))}: keep it secret")
    click.echo(f"{printable(shown(public_key))}: give it to whoever runs the bundle")


@bundle.command()
@click.argument("bundle_path", type=PATH, metavar="BUNDLE")
@click.option("--key", type=PATH, required=True, metavar="KEY.pem", help="Ed25519 private key, without a password.")
def sign(bundle_path: Path, key: Path) -> None:
    """Check BUNDLE and sign its manifest; the signature is manifest.json.sig beside it."""
    signed = sign_bundle(bundle_path, key)
    click.echo(f"{printable(shown(bundle_path))}: signed, sha256 {signed.sha256}")


@bundle.command()
@click.argument("bundle_path", type=BUNDLE, metavar="BUNDLE")
@click.option("--public-key", type=PATH, metavar="PUB.pem", help="Public key of the required signer.")
def verify(bundle_path: Path, public_key: Path | None) -> None:
    """Check the signature of BUNDLE, the hash of each file, and the contents of its graphs, without running them.

    The exit code is 5 if the bundle is refused.
    """
    opened = read_bundle(bundle_path, public_key)
    click.echo(
        f"{printable(shown(bundle_path))}: {len(opened.manifest.files)} files as exported, sha256 {opened.sha256}"
    )
    click.echo(
        "signature: not checked" if public_key is None else f"signature: by the key {printable(public_key.name)}"
    )


@click.command()
@click.argument("bundle", required=False, type=BUNDLE)
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON.")
@click.option("--report-schema", is_flag=True, help="Print the JSON Schema of `infer` reports instead.")
def inspect(bundle: Path | None, as_json: bool, report_schema: bool) -> None:
    """Check the files of BUNDLE and show what it is: training, networks, measured parity, intended use.

    BUNDLE may be an embedded one: patients, patients-tumor or phantom. Default: the one that `infer` uses.
    """
    if report_schema:
        from cascade_rt.results.segmentation import report_schema_path

        click.echo(report_schema_path().read_text(encoding="utf-8"), nl=False)
        return
    opened = read_bundle(bundle or default_bundle_path())
    if as_json:
        click.echo(json.dumps(opened.manifest.to_json(), indent=2, ensure_ascii=False))
    else:
        print_bundle(opened)


def print_bundle(bundle: Bundle) -> None:
    """Print a summary of a bundle. Its files were already checked when it was opened."""
    print_rows(results_console(), _rows(bundle))


def _rows(bundle: Bundle) -> Iterator[tuple[str, str]]:
    manifest = bundle.manifest
    config, crop, training = manifest.config, manifest.config.crop, manifest.training
    yield "bundle", f"{manifest.name}, exported {manifest.created}"
    yield "use", manifest.intended_use
    yield "networks", f"base width {config.base_width}, {config.norm} norm, window {config.window_hu} HU"
    yield (
        "crop",
        f"margin {crop.margin}, grid {crop.grid}, corners on multiples of {crop.corner_grid}, "
        f"slices without organ: {crop.empty_policy}",
    )
    least = f" of at least {config.least_island_ml:g} ml" if config.least_island_ml else ""
    yield "islands", f"{config.islands}{least}"
    yield "trained on", f"{training.get('data', 'not recorded')}, {training.get('epochs', '?')} epochs"
    if config.pixel_mm is not None:
        shortest, longest = config.pixel_mm
        yield "", f"pixels of {shortest:.3g} to {longest:.3g} mm; scans with others are resampled"
    yield from _parity_rows(manifest.parity)
    yield from _half_rows(manifest)
    for name, record in manifest.files.items():
        yield "file", f"{name}  {record.bytes / 1e6:.1f} MB  sha256 {record.sha256[:16]}…  as exported"


def _parity_rows(parity: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for stage in ("stage1", "stage2"):
        errors = ", ".join(f"{name} {error:.1g}" for name, error in parity.get(stage, {}).get("max_error", {}).items())
        yield "parity", f"{stage} against PyTorch, largest error: {errors or 'not recorded'}"
    for precision, found in parity.get("gate", {}).items():
        engine = found["engine"]
        yield "masks", f"{precision} on {engine['backend']} {engine['device']} against PyTorch: {_gate_summary(found)}"


def _half_rows(manifest: Manifest) -> Iterator[tuple[str, str]]:
    if manifest.half_precision:
        yield "", "a CPU rounds less than a GPU: run cascade-rt verify on the GPU too"
    for stage, planned in manifest.half_precision.items():
        nodes = sum(len(rule["nodes"]) for rule in planned["kept"])
        share = planned["half_share_of_convolutions"]
        work = "no convolutions" if share is None else f"{share:.0%} of convolution work"
        dropped = planned.get("dropped_by_search")
        searched = "" if dropped is None else f", {dropped} more were found not to need it"
        yield "half", f"{stage}: {work}, {nodes} nodes kept in float32{searched}"
    if "half_precision_left_out" in manifest.parity:
        yield "half", f"left out: {manifest.parity['half_precision_left_out']}"


def _gate_summary(found: Mapping[str, Any]) -> str:
    """Summarize the gate's measurements of one engine in one line."""
    dice = ", ".join(f"{name} {format_dice(found[name]['mask_dice'])}" for name in ("organ", "tumor"))
    errors = ", ".join(f"{found[name]['max_error']:.1g}" for name in ("organ", "tumor"))
    moved, changed = len(found["boxes_moved"]), len(found["tumors_appeared"]) + len(found["tumors_vanished"])
    return (
        f"Dice {dice}; largest error {errors}; of {found['slices']} slices, {moved} with a different box, "
        f"{changed} with a tumor in only one of the two"
    )


def format_dice(value: float | None) -> str:
    """Format a Dice to five decimal places."""
    return "undefined (both empty)" if value is None else f"{value:.5f}"
