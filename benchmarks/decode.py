"""Text generation by transformers' `generate`, greedy, with a cache of keys and values; eager and Trident in turns.

    python -m benchmarks.decode [--batch 1 2 4] [--dtype float32 bfloat16] [--rounds 7] [--tokens 32]

A Llama of 8 layers, 1,024 wide, 32,000 words, 16 heads of 64 over 8 of keys, random weights; texts of 64 tokens. A
ratio is refused where the logits of the next token differ by more than the dtype's rounding.
"""

import argparse
import copy
import statistics
import sys
import time

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

import trident
from trident.bench.results import machine

PROMPT, VOCABULARY = 64, 32000
FARTHEST = {"float32": 1e-4, "bfloat16": 5e-2, "float16": 1e-2}  # of the largest logit


def model(dtype: torch.dtype) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=1024, intermediate_size=2816, num_hidden_layers=8, num_attention_heads=16, num_key_value_heads=8,
        vocab_size=VOCABULARY,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval().to(dtype)


def generate(model: LlamaForCausalLM, text: Tensor, tokens: int) -> Tensor:
    found: Tensor = model.generate(
        text, attention_mask=torch.ones_like(text), max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False,
        pad_token_id=0,
    )  # fmt: skip
    return found


@torch.no_grad()
def row(batch: int, dtype: str, rounds: int, tokens: int) -> str:
    eager = model(getattr(torch, dtype))
    sides = {"eager": eager, "trident": trident.optimize(copy.deepcopy(eager))}
    text = torch.randint(0, VOCABULARY, (batch, PROMPT))
    logits = [side(text).logits[:, -1].double() for side in sides.values()]
    apart = ((logits[0] - logits[1]).abs().max() / logits[0].abs().max()).item()
    times: dict[str, list[float]] = {name: [] for name in sides}
    for warm in range(rounds + 1):
        for name, side in sides.items():
            start = time.perf_counter()
            generate(side, text, tokens)
            if warm:
                times[name].append(time.perf_counter() - start)
    rates = {name: batch * tokens / statistics.median(found) for name, found in times.items()}
    ratios = [a / b for a, b in zip(times["eager"], times["trident"], strict=True)]
    spread = (max(ratios) - min(ratios)) / 2
    said = f"{statistics.median(ratios):.2f} ±{spread:.2f}" if apart <= FARTHEST[dtype] else "refused"
    shown = ", ".join(f"{name} {rate:6.1f}" for name, rate in rates.items())
    return f"batch {batch}, {dtype:9s} tokens a second: {shown}; {said}; logits {apart:.0e} apart"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decode")
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 2, 4])
    parser.add_argument("--dtype", nargs="+", choices=list(FARTHEST), default=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=32)
    given = parser.parse_args()
    print(machine("cpu", "wall"), flush=True)
    for dtype in given.dtype:
        for batch in given.batch:
            print(row(batch, dtype, given.rounds, given.tokens), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
