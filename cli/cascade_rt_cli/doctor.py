"""`cascade-rt doctor`: show what runs on this machine."""

import click


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def doctor(as_json: bool) -> None:
    """Run every engine on a small graph and on the embedded bundle; say what works, and how to mend what does not.

    Ends with 0 where at least one engine runs the embedded bundle, else with 7.
    """
    import json

    from cascade_rt.common.packages import pip_install
    from cascade_rt.engines.doctor import examine
    from cascade_rt.errors import BackendUnavailableError
    from cascade_rt_cli.console import spinner
    from cascade_rt_cli.doctor_tables import print_diagnosis
    from cascade_rt_cli.plans import plans

    with spinner() as say:
        say("trying every engine")
        diagnosis = examine(plans)
    if as_json:
        click.echo(json.dumps(diagnosis.to_json(), indent=2, ensure_ascii=False))
    else:
        print_diagnosis(diagnosis)
    if diagnosis.best is None:
        raise BackendUnavailableError(f"no engine runs the embedded bundle here; run: {pip_install('cpu')}")
