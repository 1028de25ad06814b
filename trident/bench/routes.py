"""Where did `route` send a call, and why?"""

import contextlib
import logging
from collections.abc import Callable, Iterator

from trident.runtime import route

KERNEL = "kernel"


class _Heard(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.decisions: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        _, where = record.args  # type: ignore[misc]
        self.decisions.append(str(where))


@contextlib.contextmanager
def heard() -> Iterator[list[str]]:
    """The decisions of the block: "kernel (native)" or "torch: reason", one for each distinct call."""
    handler, log = _Heard(), route.log
    before = route.LOGGED, route._noted, log.level, log.propagate, list(log.handlers)
    route.LOGGED, route._noted, log.propagate = True, set(), False
    log.handlers[:] = [handler]
    log.setLevel(logging.INFO)
    try:
        yield handler.decisions
    finally:
        route.LOGGED, route._noted, _, log.propagate, log.handlers[:] = before
        log.setLevel(before[2])


def where(call: Callable[[], object]) -> str:
    """KERNEL; "torch: reason" if no kernel ran; "partly torch: reason" if both did."""
    with heard() as decisions:
        call()
    torch = [d for d in decisions if d.startswith("torch")]
    if not torch:
        return KERNEL if decisions else "torch: never asked"
    return torch[0] if len(torch) == len(decisions) else f"partly {torch[0]}"
