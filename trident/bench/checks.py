"""No ratio without a right result: outputs and gradients against float64, by the law that the tests hold.

Trident must keep the law. A rival may be off by SLACK times as much before it is called wrong: torch keeps some
statistics of a bfloat16 operator in bfloat16, and that is no reason to refuse the comparison.
Operators that draw random numbers are compared by mean and deviation; their values have tests of their own.
"""

import functools
import math

import torch
from torch import Tensor

from trident.bench.workloads import Function, Workload, leaves
from trident.cases.case import floating, results
from trident.cases.closeness import difference

SLACK = 16.0
SIGMAS = 8  # of the mean of a random operator's elements


def run(fn: Function, inputs: list[Tensor], dtype: torch.dtype, gradients: bool) -> list[Tensor]:
    """The results and, if wanted, the gradient of every floating input, from the same random gradients each time,
    which `dtype` can hold."""
    torch.manual_seed(2)
    if not gradients:
        with torch.no_grad():
            return results(fn(*inputs))
    y = results(fn(*inputs))
    torch.manual_seed(1)
    dy = [torch.randn(t.shape, dtype=torch.float32, device=t.device).to(dtype).to(t.dtype) for t in floating(y)]
    return [*(t.detach() for t in y), *torch.autograd.grad(floating(y), leaves(inputs), dy)]


class Judge:
    """Of a case at a shape in a dtype. gradients: are they to be compared at all?

    What was judged once is not judged again: the ways of a workload share it."""

    def __init__(self, workload: Workload, gradients: bool):
        self.workload, self.gradients = workload, gradients and workload.differentiable
        case, self.terms = workload.case, workload.case.reduced(workload.shape)
        self.inputs = workload.inputs()
        double = [_copy(t, torch.float64) for t in self.inputs]
        self.expected = run(case.exact or case.reference, double, workload.dtype, self.gradients)
        self.found: dict[tuple[str, bool], str | None] = {}

    def fault(self, who: str, fn: Function, way: str, slack: float = 1.0) -> str | None:
        """What is wrong with the results of `fn`, called as in that way of the workload; None if they are right."""
        gradients = self.gradients and way != "forward"
        if (who, gradients) not in self.found:
            self.found[who, gradients] = self._fault(fn, gradients, slack)
        return self.found[who, gradients]

    def _fault(self, fn: Function, gradients: bool, slack: float) -> str | None:
        actual = run(fn, [_copy(t, t.dtype) for t in self.inputs], self.workload.dtype, gradients)
        expected = self.expected
        if self.gradients and not gradients:
            expected = expected[: len(expected) - len(leaves(self.inputs))]
        if self.workload.case.random:
            return _statistics(actual, expected)
        return difference(actual, expected, self.workload.dtype, self.terms, slack)


@functools.lru_cache(maxsize=1)
def judge(workload: Workload, gradients: bool) -> Judge:
    """The ways of one case at one shape follow each other: give `workload` as one of its forwards."""
    return Judge(workload, gradients)


def _copy(t: Tensor, dtype: torch.dtype) -> Tensor:
    """A leaf of its own; integers keep their type."""
    if not t.is_floating_point():
        return t.clone()
    return t.detach().to(dtype, copy=True).requires_grad_(t.requires_grad)


def _statistics(actual: list[Tensor], expected: list[Tensor]) -> str | None:
    for i, (a, e) in enumerate(zip(actual, expected, strict=True)):
        if a.shape != e.shape:
            return f"result {i}: shape {a.shape}, expected {e.shape}"
        a, e = a.double(), e.double()
        # whole planes may be dropped together: the sample is as small as the number of planes
        sample = a.shape[0] * a.shape[1] if a.dim() > 2 else a.numel()
        allowed = SIGMAS * (e.std().item() if e.numel() > 1 else math.inf) / math.sqrt(max(1, sample)) + 1e-3
        for what, x, y in (("mean", a.mean(), e.mean()), ("deviation", a.std(), e.std())):
            if a.numel() > 1 and not abs(x.item() - y.item()) <= allowed:
                return f"result {i}: {what} {x.item():.4g}, expected {y.item():.4g} within {allowed:.1g}"
    return None
