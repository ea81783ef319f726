"""How much is printed, and how: `-v` adds the log on stderr, `-q` leaves only errors, `--log-format` asks for JSON.

JSON is one object per line, with results on stdout and errors on stderr.
"""

import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from cascade_rt.common.shown_paths import plain_text
from cascade_rt.errors import CascadeError
from cascade_rt_cli.messages import printable, shown, with_flags

_QUIET, _VERBOSE, _SHOWN, _FORMAT = (f"{__name__}.{what}" for what in ("quiet", "verbose", "shown", "format"))
_LOGGER = logging.getLogger("cascade_rt")


def is_quiet() -> bool:
    """Return whether only errors should be printed."""
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.meta.get(_QUIET))


def print_note(text: str) -> None:
    """Print a note for a human reader on stderr, unless the output is JSON or `-q` is given."""
    if not (is_quiet() or is_json()):
        click.echo(plain_text(with_flags(text)), err=True)


def _ask_quiet(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        context.meta[_QUIET] = True
        _check(context)


def _ask_verbose(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        context.meta[_VERBOSE] = True
        _check(context)
        # Only for a flag after the command name: before it, the context may still fail and would never be closed.
        if context.parent is not None:
            show_log_where_asked(context)


def _check(context: click.Context) -> None:
    if context.meta.get(_QUIET) and context.meta.get(_VERBOSE):
        raise click.UsageError("-v and -q contradict each other; omit one of them")


def with_verbosity(command: click.Command) -> click.Command:
    """Add `-v` and `-q` to a command unless it already has them, so that they work before and after its name."""
    if not any(parameter.name == "verbose" for parameter in command.params):
        command.params += [
            _flag("-v", "--verbose", _ask_verbose, "Show the log on stderr: what is read, opened, written and done."),
            _flag("-q", "--quiet", _ask_quiet, "Print nothing but errors."),
        ]
    return command


def _flag(short: str, long: str, callback: Callable[..., None], text: str) -> click.Option:
    return click.Option([short, long], is_flag=True, is_eager=True, expose_value=False, callback=callback, help=text)


def show_log_where_asked(context: click.Context) -> None:
    """Show the log until the outermost command ends, if `-v` was given by now and the log is not shown already."""
    if not context.meta.get(_VERBOSE) or context.meta.get(_SHOWN):
        return
    context.meta[_SHOWN] = True
    handler, level = _Stderr(context), _LOGGER.level
    _LOGGER.addHandler(handler)
    _LOGGER.setLevel(logging.INFO)

    def end() -> None:
        _LOGGER.removeHandler(handler)
        _LOGGER.setLevel(level)

    context.find_root().call_on_close(end)


class _Stderr(logging.Handler):
    """Log handler that writes to the current stderr, which a progress bar may replace.

    Paths are shortened as in all other output.
    """

    def __init__(self, context: click.Context) -> None:
        super().__init__()
        self._context = context
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        if isinstance(args := record.args, tuple):
            # Change a copy, because other handlers may need the folders.
            record = logging.makeLogRecord(record.__dict__)
            with self._context.scope(cleanup=False):
                record.args = tuple(shown(each) if isinstance(each, Path) else each for each in args)
        if is_json(self._context):
            print_event("log", err=True, level=record.levelname, logger=record.name, message=record.getMessage())
            return
        sys.stderr.write(printable(self.format(record)) + "\n")


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
    help="json: one JSON object per line, with error codes; results on stdout, errors on stderr.",
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
