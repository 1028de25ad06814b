"""Where did `route` send a call, and why?"""

from collections.abc import Callable

from torch import Tensor

from trident.runtime import route

KERNEL = "kernel"


def where(call: Callable[[], object]) -> str:
    """KERNEL; "torch: reason" if no kernel ran; "partly torch: reason" if both did."""
    reasons: list[str | None] = []

    def watcher(name: str, tensors: tuple[Tensor | None, ...], reason: str | None) -> None:
        reasons.append(reason)

    route.WATCHERS.append(watcher)
    try:
        call()
    finally:
        route.WATCHERS.remove(watcher)
    torch = [reason for reason in reasons if reason is not None]
    if not torch:
        return KERNEL if reasons else "torch: never asked"
    return f"torch: {torch[0]}" if len(torch) == len(reasons) else f"partly torch: {torch[0]}"
