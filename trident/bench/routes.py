"""Where did `route` send a call, and why?"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor

from trident.runtime import route

KERNEL = "kernel"


@contextmanager
def asked() -> Iterator[list[str | None]]:
    """What `route` says within the block: the reasons to go to torch, None where a kernel ran."""
    reasons: list[str | None] = []

    def watcher(name: str, tensors: tuple[Tensor | None, ...], reason: str | None) -> None:
        reasons.append(reason)

    route.WATCHERS.append(watcher)
    try:
        yield reasons
    finally:
        route.WATCHERS.remove(watcher)


def told(reasons: Sequence[str | None]) -> str:
    """KERNEL; "torch: reason" if no kernel ran; "partly torch: reason" if both did."""
    torch = [reason for reason in reasons if reason is not None]
    if not torch:
        return KERNEL if reasons else "torch: never asked"
    return f"torch: {torch[0]}" if len(torch) == len(reasons) else f"partly torch: {torch[0]}"


def where(call: Callable[[], object]) -> str:
    with asked() as reasons:
        call()
    return told(reasons)
