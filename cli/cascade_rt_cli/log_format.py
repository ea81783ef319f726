"""Machine-readable output: one JSON object per line, with results on stdout and errors on stderr."""

import json
from typing import Any

import click

from cascade_rt.common.shown_paths import plain_text
from cascade_rt.errors import CascadeError
from cascade_rt_cli.flags import with_flags

_FORMAT = f"{__name__}.format"


def _remember(context: click.Context, _: click.Parameter, value: str) -> str:
    context.meta[_FORMAT] = value
    return value


log_format_option = click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    # Parsed before the other options, so that errors in them are printed in this format.
    is_eager=True,
    expose_value=False,
    callback=_remember,
    help="json: a JSON object on each line, with the codes of errors; results on stdout, errors on stderr.",
)


def is_json(context: click.Context | None = None) -> bool:
    """Return whether output is printed as JSON."""
    context = context or click.get_current_context(silent=True)
    return context is not None and context.meta.get(_FORMAT) == "json"


def print_event(event: str, *, err: bool = False, **values: Any) -> None:
    """Print one line of JSON, in which undecodable file names are escaped."""
    click.echo(json.dumps({"event": event, **values}), err=err)


def print_error(context: click.Context, error: CascadeError, message: str) -> None:
    """Print the error that a command ends with.

    Args:
        context: The command's context, or one of its parents.
        error: The error.
        message: The text to print for it.
    """
    message = with_flags(message)
    if is_json(context):
        print_event("error", err=True, code=error.code, message=message, exit_code=error.exit_code)
    else:
        click.echo(f"cascade-rt: error[{error.code}]: {plain_text(message, lines=True)}", err=True)


def print_interrupted(context: click.Context) -> None:
    """Print that the user interrupted a command."""
    if is_json(context):
        print_event("interrupted", err=True)
    else:
        click.echo("Interrupted.", err=True)
