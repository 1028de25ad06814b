"""Is any kernel slower than torch's operator? What `route` must know, so kernels are forced.

    python -m benchmarks.never_slower [case ...] [--dtype bfloat16] [--csv out.csv]

The bench (`python -m trident bench`) with what it takes for that: every way, every case, one thread's CPU time.
"""

import sys

from trident.__main__ import main
from trident.cases import CASES


def command(arguments: list[str]) -> list[str]:
    """What is not said: all cases, kernels, warm inputs as in the tables of docs/measured.md, rows of their own."""
    named = bool(arguments) and not arguments[0].startswith("-")
    fixed = ["--backward", "--policy", "kernels", "--clock", "cpu", "--warm", "--rows", "out/never_slower.jsonl"]
    return ["bench", *([] if named else CASES), *arguments, *fixed]


if __name__ == "__main__":
    sys.exit(main(command(sys.argv[1:])))
