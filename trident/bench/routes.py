"""Where did `route` send a call, and why?"""

import contextlib
from collections.abc import Callable, Iterator

from torch import Tensor

from trident.runtime import route

KERNEL = "kernel"


@contextlib.contextmanager
def heard() -> Iterator[list[str]]:
    """The decisions of the block: "kernel" or "torch: reason"."""
    decisions: list[str] = []

    def watcher(name: str, tensors: tuple[Tensor | None, ...], reason: str | None) -> None:
        decisions.append(f"torch: {reason}" if reason else KERNEL)

    route.WATCHERS.append(watcher)
    try:
        yield decisions
    finally:
        route.WATCHERS.remove(watcher)


def where(call: Callable[[], object]) -> str:
    """KERNEL; "torch: reason" if no kernel ran; "partly torch: reason" if both did."""
    with heard() as decisions:
        call()
    torch = [d for d in decisions if d != KERNEL]
    if not torch:
        return KERNEL if decisions else "torch: never asked"
    return torch[0] if len(torch) == len(decisions) else f"partly {torch[0]}"
