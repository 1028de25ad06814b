"""Trident's kernel or torch's own operator? One place, one reason for each decision.

`to_torch` is asked first by every public function that a call has entered by its door (runtime/door.py).
`TRIDENT_LOG=route` prints each distinct decision once. `TRIDENT_ROUTE=torch` sends every call to torch;
`TRIDENT_ROUTE=kernels` ignores speed (tests and the bench use it).
"""

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch._subclasses.functional_tensor import FunctionalTensor
from torch.autograd import forward_ad
from torch.nn import Parameter

from trident.runtime import crossover, pages
from trident.runtime.launch import device_type, executor

HALF_TO_DOUBLE = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64})
PLAIN = frozenset({Tensor, Parameter})
STRIDED = torch.strided
INVALID = "torch explains what is wrong with the input"

log = logging.getLogger("trident.route")
Watcher = Callable[[str, tuple[Tensor | None, ...], str | None], None]
WATCHERS: list[Watcher] = []  # told each decision: the operator, its tensors, the reason to go to torch
ours = 0  # calls that did not go to torch; of `redirect`, which asks whether it was of use

POLICIES = ("auto", "kernels", "torch")
policy = os.environ.get("TRIDENT_ROUTE", "auto")
if policy not in POLICIES:
    raise ValueError(f"TRIDENT_ROUTE is {policy!r}; expected one of {', '.join(POLICIES)}")


@contextlib.contextmanager
def forced(to: str) -> Iterator[None]:
    """Within the block: "kernels", "torch" or "auto"."""
    global policy
    if to not in POLICIES:
        raise ValueError(f"forced: to is {to!r}; expected one of {', '.join(POLICIES)}")
    before, policy = policy, to
    try:
        yield
    finally:
        policy = before


def to_torch(
    name: str,
    *tensors: Tensor | None,
    unless: str | Callable[[], str | None] | None = None,
    mixed: bool = False,
    dtypes: frozenset[torch.dtype] = HALF_TO_DOUBLE,
    work: int | None = None,
) -> bool:
    """Must this call of operator `name` go to torch? `tensors`: the input first, then what the kernel also reads.

    unless: a reason that the caller found (None: it found none), or a function that finds one, asked where size decides
    nothing. mixed: the kernel reads operands of several dtypes. work: what `crossover` goes by, where that is not the
    number of the input's elements.
    """
    faster = None
    if policy == "auto" and not isinstance(unless, str):
        faster = _fast(name, tensors[0], work)
        if faster and not WATCHERS:
            return True  # nobody is told why, so nothing else is asked
    reason = (unless() if callable(unless) else unless) or faster or _reason(name, tensors, mixed, dtypes)
    _tell(name, tensors, reason)
    if reason is None and not torch.compiler.is_compiling():
        global ours
        ours += 1
    return reason is not None


def watched() -> bool:
    """Does anybody ask where calls go, or say so? Then each call is to be heard of."""
    return policy != "auto" or bool(WATCHERS)


def always_torchs(names: tuple[str, ...], x: Tensor) -> bool:
    """Is each of these operators torch's at any size, where x lives? For a call that asks for its parts one by one:
    one look instead, where nobody watches."""
    if watched() or torch.compiler.is_compiling() or not isinstance(x, Tensor):
        return False
    how = executor(device_type(x))
    return how is not None and crossover.hand_tuned(names, how)


def gradient_to_torch(name: str, x: Tensor) -> bool:
    """Must the gradient of operator `name`, whose forward ran in a kernel, go to torch? For speed; x: what it reads.

    Asked where a forward gains and its gradient, a loop at memory speed, pays for Python alone.
    """
    name = f"{name} (gradient)"
    reason = _fast(name, x) if policy == "auto" else None
    _tell(name, (x,), reason)
    return reason is not None


def faster_in_torch(name: str, x: Tensor, work: int) -> bool:
    """Is torch's operator `name` the faster one? For a part of a kernel's work: nobody is told, no policy asked."""
    return _fast(name, x, work) is not None


def _tell(name: str, tensors: tuple[Tensor | None, ...], reason: str | None) -> None:
    if WATCHERS and not torch.compiler.is_compiling():
        for watcher in WATCHERS:
            watcher(name, tensors, reason)


def _fast(name: str, x: Tensor | None, work: int | None = None) -> str | None:
    """Asked first: where torch is faster it is asked at once, and the rest need not be checked."""
    if not isinstance(x, Tensor):
        return None
    how = executor(device_type(x))
    numel = x.numel() if work is None else work
    if not how:
        return None
    reason = crossover.faster_in_torch(name, how, numel)
    if reason and how == "native" and name in crossover.PAGED and pages.large(x):
        return None
    return reason


def _reason(name: str, tensors: tuple[Tensor | None, ...], mixed: bool, dtypes: frozenset[torch.dtype]) -> str | None:
    if policy == "torch":
        return "TRIDENT_ROUTE=torch"
    if not torch.compiler.is_compiling() and (reason := transformed(tensors)):
        return reason
    x: Tensor = tensors[0]  # type: ignore[assignment]
    for t in tensors:
        if t is None:
            continue
        # issubclass: a DTensor or a quantized tensor that is a parameter claims to be an instance of Parameter
        if type(t) not in PLAIN and not issubclass(type(t), (Parameter, FakeTensor, FunctionalTensor)):
            return f"{type(t).__name__} is not a plain tensor"
        if t.layout != STRIDED:
            return f"no kernel for {t.layout}"
        if t is not x and t.device != x.device:
            return INVALID
        if t.dtype not in dtypes:
            return f"no kernel for {t.dtype}"
        if t is not x and t.dtype != x.dtype and not mixed and not torch.is_autocast_enabled(x.device.type):
            return "operands of several dtypes"
    if x.numel() == 0:
        return "no elements"
    if executor(device_type(x)) is None:
        return f"no executor for {x.device.type}"
    return None


_transforms, _wrapped = torch._C._functorch.peek_interpreter_stack, torch._C._functorch.is_functorch_wrapped_tensor
_tracing = torch._C._get_tracing_state


def transformed(tensors: tuple[Tensor | None, ...]) -> str | None:
    """torch.func and forward-mode autodiff look through torch's operators only; so does torch.jit.trace."""
    if _transforms() is not None:
        return "inside a torch.func transform"
    for t in tensors:
        if isinstance(t, Tensor):
            if t.is_neg():
                return "a lazily negated tensor"
            if _wrapped(t):
                return "a tensor that outlived its torch.func transform"
    if forward_ad._current_level >= 0:
        return "forward-mode autodiff"
    if _tracing() is not None:
        return "torch.jit.trace"
    return None


_noted: set[tuple[object, ...]] = set()


def _note(name: str, tensors: tuple[Tensor | None, ...], reason: str | None) -> None:
    key = (name, reason, *((t.shape, t.dtype, t.device) for t in tensors if t is not None))
    if key in _noted:
        return
    _noted.add(key)
    x = next(t for t in tensors if t is not None)
    what = f"{name} {list(x.shape)} {str(x.dtype).removeprefix('torch.')} {x.device}"
    log.info("trident: %s -> %s", what, f"torch: {reason}" if reason else f"kernel ({executor(x.device.type)})")


if "route" in os.environ.get("TRIDENT_LOG", "").split(","):
    log.addHandler(logging.StreamHandler(sys.stderr))
    log.setLevel(logging.INFO)
    WATCHERS.append(_note)
