"""The command line: `python -m trident demo | doctor`."""

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="trident", description="Kernels written in Triton behind torch.nn.")
    commands = parser.add_subparsers(dest="command", required=True)

    demo = commands.add_parser("demo", help="train a small vision transformer with torch.nn and with Trident")
    demo.add_argument("--out", type=Path, default=Path("out/demo.png"), help="where the picture of the curves goes")
    demo.add_argument("--steps", type=int, help="training steps (default: what fits the executor)")
    demo.add_argument("--device", help="cpu or cuda (default: cuda if there is one)")

    commands.add_parser("doctor", help="print versions, devices and executors, and test one operator")

    options = vars(parser.parse_args(argv))
    run = importlib.import_module(f"trident.{options.pop('command')}").main  # loads only what the command needs
    return run(**options)


if __name__ == "__main__":
    sys.exit(main())
