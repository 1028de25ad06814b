"""The command line: `python -m trident demo | doctor | bench | tune | inspect`."""

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

    _bench(commands.add_parser("bench", help="time operators, or a model of yours, against torch"))
    _tune(commands.add_parser("tune", help="measure on this machine from which sizes on kernels are faster"))
    _inspect(commands.add_parser("inspect", help="what each kernel will do on a GPU; needs none"))

    options = vars(parser.parse_args(argv))
    run = importlib.import_module(f"trident.{options.pop('command')}").main  # loads only what the command needs
    return run(**options)


def _bench(bench: argparse.ArgumentParser) -> None:
    add = bench.add_argument
    add("names", nargs="*", metavar="op", help="cases of trident/cases, as silu or rms_norm* (default: every function)")
    add("--model", metavar="MODULE:FUNCTION", help="instead: a function that returns (model, inputs)")
    add("--backward", action="store_true", help="also backward, and forward with backward")
    add("--dtype", default="float32")
    add("--sizes", default="", help="as 4x256,256x1024, for cases of as many dimensions; else their own")
    add("--against", default="eager", help="some of eager,compile,liger (default: eager)")
    add("--device", help="cpu or cuda (default: cuda if there is one)")
    add(
        "--clock", choices=("wall", "cpu"), default="wall", help="of CPUs: cpu is one thread's time, for a busy machine"
    )
    add("--policy", choices=("auto", "kernels"), default="auto", help="kernels: also where Trident prefers torch")
    add("--warm", action="store_true", help="one copy of the inputs, which may stay in the cache")
    add("--seconds", type=float, default=1.0, help="how long a row is timed, about")
    add("--largest", type=int, help="leave out inputs of more elements")
    add("--rows", type=Path, default=Path("out/bench.jsonl"), help="where rows are kept; a run goes on from them")
    add("--fresh", action="store_true", help="forget the rows that are kept")
    add("--csv", type=Path)
    add("--html", type=Path, help="one self-contained page with pictures")
    add("--markdown", type=Path, help="a page of tables, with a picture beside it")
    add("--readme", type=Path, nargs="+", default=[], help="put the means between the marks of these")
    add("--fail", action="store_true", help="exit with 1 if a row is slower than eager")


def _tune(tune: argparse.ArgumentParser) -> None:
    add = tune.add_argument
    add("names", nargs="*", metavar="op", help="functions, as silu or rms_norm (default: all)")
    add("--seconds", type=float, default=0.05, help="how long a comparison lasts, about")
    add("--minutes", type=float, default=10.0, help="after which no operator is begun")
    add("--clock", choices=("wall", "cpu"), default="wall", help="cpu is one thread's time, for a busy machine")
    add("--out", type=Path, help="the file (default: $TRIDENT_TUNED, or trident/tuned.json in the user's cache)")
    add("--dry-run", action="store_true", help="print what was found, and write nothing")
    add("--forget", action="store_true", help="remove the file: what ships with Trident holds again")


def _inspect(inspect: argparse.ArgumentParser) -> None:
    add = inspect.add_argument
    add("names", nargs="*", metavar="op", help="operators, as layer_norm, or cases (default: all)")
    add("--arch", default="sm_90", help="some of sm_80,sm_90,sm_100,gfx942, or all (default: sm_90)")
    add("--dtype", default="bfloat16", choices=("float32", "float16", "bfloat16", "float64"))
    add("--shape", help="sizes of the input, as 4096,4096 (default: the largest that is timed)")
    add("--html", type=Path, help="write a page with the roofline there")
    add("--json", type=Path, dest="json_file", help="write all rows there")
    add("--diff", metavar="REV", help="print what differs from another revision of this checkout")


if __name__ == "__main__":
    sys.exit(main())
