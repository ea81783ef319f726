"""Entry point of `python -m cascade_rt_cli`, which `torchrun` also starts."""

from cascade_rt_cli.main import main

if __name__ == "__main__":
    main(prog_name="cascade-rt")
