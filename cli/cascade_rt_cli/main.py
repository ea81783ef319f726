"""The `cascade-rt` command: a group whose commands are loaded lazily."""

import importlib
import signal
import sys
from typing import Any

import click

from cascade_rt.common.shown_paths import hide_folders
from cascade_rt.errors import CascadeError
from cascade_rt_cli.output import print_error, print_interrupted, show_log_where_asked, with_verbosity
from cascade_rt_cli.streams import lasting_streams

# fmt: off
COMMANDS = (
    "demo", "infer", "report", "summarize", "prepare", "train", "export", "verify", "evaluate", "benchmark", "inspect",
    "bundle", "doctor",
)
# fmt: on
"""Commands in the order in which a new user needs them. Each is a function of its name, in a module of its name."""
_MODULES = {"inspect": "bundle"}
"""Modules of the commands that are in another one."""

_ARGUMENTS = f"{__name__}.arguments"


class _LazyGroup(click.Group):
    """Loads a command's module when it is called or listed, and prints a `CascadeError` as a sentence.

    Other exceptions raised by our code are bugs and pass through with their traceback.
    """

    def main(self, *arguments: Any, **options: Any) -> Any:
        with lasting_streams():
            return super().main(*arguments, **options)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"cascade_rt_cli.{_MODULES.get(cmd_name, cmd_name)}")
        command: click.Command = getattr(module, cmd_name)
        return with_verbosity(command)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[_ARGUMENTS] = list(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        signal.signal(signal.SIGTERM, _terminate)
        show_log_where_asked(ctx)
        try:
            return super().invoke(ctx)
        except CascadeError as error:
            print_error(ctx, error, str(error) if ctx.params["log_paths"] else _without_folders(ctx, str(error)))
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            print_interrupted(ctx)
            ctx.exit(128 + signal.SIGINT)


def _without_folders(ctx: click.Context, message: str) -> str:
    """Shorten paths from the command line in a message."""
    arguments: list[str] = ctx.meta[_ARGUMENTS]
    values = [argument.partition("=")[2] if argument.startswith("--") else argument for argument in arguments]
    return hide_folders(message, filter(None, values))


def _terminate(number: int, _: object) -> None:
    """Exit through an exception, so that temporary files are removed. The exit code is the one shells expect."""
    sys.exit(128 + number)


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="cascade-rt", prog_name="cascade-rt")
@click.option(
    "--log-paths",
    is_flag=True,
    help="Print paths in full. By default, folders outside the working folder are hidden, because they are often named "
    "after patients.",
)
def main(log_paths: bool) -> None:
    """Find the pancreas and its tumors in abdominal CT, with two networks in a cascade.

    \b
    Start here:
      cascade-rt demo                     slices of patients and a synthetic scan, segmented, with pictures
      cascade-rt infer scan.nii.gz        a mask and a report beside it
      cascade-rt doctor                   what runs on this machine, and how to fix what does not

    \b
    Train your own:
      cascade-rt train --dataset phantom -o runs/first
      cascade-rt prepare --dataset msd Task07_Pancreas -o stores/msd
      cascade-rt export runs/first -o bundles/first
      cascade-rt verify bundles/first --calibrate scan.nii.gz
      cascade-rt infer scan.nii.gz --bundle bundles/first
      cascade-rt evaluate --images scans --labels labels --bundle bundles/first

    Exit codes: 0 success, 1 internal bug, 2 wrong usage, 3 some scans failed, 4 bad input, 5 bundle refused, 6 output
    not writable, 7 engine or device unavailable or wrong, 8 output exists, 130 interrupted, 143 terminated.
    """  # noqa: D301  \b is click's mark for lines that are not wrapped


with_verbosity(main)
