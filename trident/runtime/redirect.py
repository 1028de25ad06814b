"""`Redirect`: calls of torch's functions, operators and Tensor methods become calls of Trident's.

A TorchFunctionMode on the thread's own stack. torch takes the mode off while `__torch_function__` runs, so what Trident
itself calls of torch is torch's. `aside` takes it off for Trident's functions that are called by their own names, too:
with the mode on, each attribute of a tensor that they read would cost a microsecond (docs/decisions/033).
"""

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

import torch
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import _CheckpointFrame

from trident.runtime import route
from trident.runtime.op import constant

F = TypeVar("F", bound=Callable[..., Any])


class Target(NamedTuple):
    """Trident's function, the number of its leading arguments that are torch's too, and those that may be named.

    names None: any, the function hands those that it lacks to torch.
    """

    function: Callable[..., Any]
    positional: int
    names: frozenset[str] | None


TARGETS: dict[Any, Target] = {}  # torch's function, as `__torch_function__` gets it -> ours


_compiling, _top_hooks = torch.compiler.is_compiling, torch._C._autograd._top_saved_tensors_default_hooks
_ORDINARY = frozenset({torch.Tensor, torch.nn.Parameter})
_NOBODYS = (torch.Tensor.__torch_function__.__func__, torch._C._disabled_torch_function_impl)  # type: ignore[attr-defined]


def _somebodys(types: Iterable[type]) -> bool:
    """Has one of these classes a `__torch_function__` of its own? It is to hear of torch's function, not of ours."""
    return any(getattr(t.__torch_function__, "__func__", t.__torch_function__) not in _NOBODYS for t in types)  # type: ignore[attr-defined]


_tracing = torch.compiler.is_dynamo_compiling


class Redirect(TorchFunctionMode):
    gained = 0  # calls taken that did not go to torch after all
    in_graphs = False  # has a graph been traced under the mode? Its guards, and its calls that are ours, ask for it

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if _tracing():
            _note_graph()
        target = TARGETS.get(func)
        if (
            target is not None
            and len(args) <= target.positional
            and (_ORDINARY.issuperset(types) or not _somebodys(types))
        ):
            if not _compiling() and (hooks := _top_hooks(True)) is not None:
                _mark_checkpoint(hooks)
            if not kwargs or target.names is None or target.names.issuperset(kwargs):
                return self._taken(target.function, args, kwargs or {})
        return func(*args, **kwargs) if kwargs else func(*args)

    def _taken(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if _compiling():
            return function(*args, **kwargs)
        before = route.ours
        y = function(*args, **kwargs)
        self.gained += route.ours != before
        return y


REDIRECT = Redirect()


@constant
def _note_graph() -> None:
    """Runs when a graph is traced, and is no part of it."""
    REDIRECT.in_graphs = True


_len = torch._C._len_torch_function_stack
_at = torch._C._get_function_stack_at
_pop = torch._C._pop_torch_function_stack
_push = torch._C._push_on_torch_function_stack


def active() -> bool:
    """Is the mode on this thread's stack?"""
    return any(type(_at(i)) is Redirect for i in range(_len()))


@contextlib.contextmanager
def on() -> Iterator[None]:
    """The mode is on within the block; on once, however deeply blocks are nested."""
    if active():
        yield
        return
    with REDIRECT:
        yield


def aside(function: F) -> F:
    """`function` with the mode off, where it is the innermost mode; others stay, as those of `torch.device`."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if not _len() or type(_at(_len() - 1)) is not Redirect:
            return function(*args, **kwargs)
        mode = _pop()
        try:
            return function(*args, **kwargs)
        finally:
            _push(mode)

    return call  # type: ignore[return-value]


# Activation checkpointing runs a part of the forward again, in the backward, where the mode is off: torch would then
# find other tensors saved than by the first run. Who is redirected in a checkpoint asks that its second run be so too.


def _mark_checkpoint(hooks: tuple[Any, Any]) -> None:
    for cell in getattr(hooks[0], "__closure__", None) or ():
        frame = cell.cell_contents
        if isinstance(frame, _CheckpointFrame) and not isinstance(frame.recompute_fn, _Redirected):
            frame.recompute_fn = _Redirected(frame.recompute_fn)


class _Redirected:
    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *args: Any) -> Any:
        with on():
            return self.function(*args)
