"""The `cascade-rt` command: a group whose commands are loaded when they are needed."""

import importlib
import signal
import sys
from typing import Any

import click

from cascade_rt.errors import CascadeError
from cascade_rt_cli.log_format import print_error, print_interrupted

COMMANDS = ("demo", "infer", "prepare", "train", "export", "verify", "evaluate", "inspect", "doctor")
"""In the order in which a newcomer meets them. Each is a module of this package with a command of the same name."""


class _LazyGroup(click.Group):
    """Loads a command's module when it is called or listed, and turns our errors into sentences.

    Errors of ours that are bugs pass through with their traceback.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"cascade_rt_cli.{cmd_name}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        signal.signal(signal.SIGTERM, _terminate)
        try:
            return super().invoke(ctx)
        except CascadeError as error:
            print_error(ctx, error, str(error))
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            print_interrupted(ctx)
            ctx.exit(128 + signal.SIGINT)


def _terminate(number: int, _: object) -> None:
    """End as after an error, so that temporary files go; the exit code is the one shells expect."""
    sys.exit(128 + number)


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="cascade-rt", prog_name="cascade-rt")
def main() -> None:
    """Find the pancreas and its tumours in abdominal CT, with two networks in a cascade.

    \b
    Start here:
      cascade-rt demo                     a synthetic scan, segmented, with a picture
      cascade-rt infer scan.nii.gz        a mask and a report beside it
      cascade-rt doctor                   what runs on this machine, and how to mend what does not

    \b
    Train your own:
      cascade-rt train --dataset phantom -o runs/first
      cascade-rt prepare --dataset msd Task07_Pancreas -o stores/msd
      cascade-rt export runs/first -o bundles/first
      cascade-rt verify bundles/first --calibrate scan.nii.gz
      cascade-rt infer scan.nii.gz --bundle bundles/first
      cascade-rt evaluate --images scans --labels labels --bundle bundles/first

    Exit codes: 0 done, 1 a bug of ours, 2 wrong usage, 3 some scans failed, 4 bad input, 5 bundle refused, 6 output not
    writable, 7 engine or device unavailable, 8 output exists, 130 interrupted, 143 terminated.
    """  # noqa: D301  \b is click's mark for lines that are not wrapped
