"""`cascade-rt inspect`: check the files of a bundle and show its manifest."""

from pathlib import Path

import click

from cascade_rt_cli.options import BUNDLE


@click.command()
@click.argument("bundle", required=False, type=BUNDLE)
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON.")
@click.option("--report-schema", is_flag=True, help="Print the JSON Schema of the reports of `infer` instead.")
def inspect(bundle: Path | None, as_json: bool, report_schema: bool) -> None:
    """Check the files of BUNDLE and show what it is: training, networks, measured parity, intended use.

    BUNDLE may be patients or phantom, the embedded ones. Without it the one is shown that `infer` uses by default.
    """
    import json

    from cascade_rt.bundles.bundle import default_bundle_path, read_bundle
    from cascade_rt.results.segmentation import report_schema_path
    from cascade_rt_cli.bundle_tables import print_bundle

    if report_schema:
        click.echo(report_schema_path().read_text(encoding="utf-8"), nl=False)
        return
    opened = read_bundle(bundle or default_bundle_path())
    if as_json:
        click.echo(json.dumps(opened.manifest.to_json(), indent=2, ensure_ascii=False))
    else:
        print_bundle(opened)
