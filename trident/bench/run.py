"""A run: workload after workload, each row kept at once. Ctrl-C ends it early; what was measured stays."""

from collections.abc import Callable, Sequence

from trident.bench.measure import Settings, blank, measure
from trident.bench.results import Machine, Row, Store
from trident.bench.rivals import Rival
from trident.bench.workloads import Workload

Tell = Callable[[Row], None]


def run(
    workloads: Sequence[Workload],
    rivals: list[Rival],
    settings: Settings,
    machine: Machine,
    store: Store,
    tell: Tell = lambda row: None,
) -> tuple[list[Row], bool]:
    """The rows, and whether all were measured. Those that the store has are not measured again."""
    rows: list[Row] = []
    try:
        for workload in workloads:
            if workload.way != "forward" and not workload.differentiable:
                continue
            row = store.rows.get(blank(workload, rivals, settings, machine).key)
            if row is None:
                row = measure(workload, rivals, settings, machine)
                store.add(row)
            rows.append(row)
            tell(row)
    except KeyboardInterrupt:
        return rows, False
    return rows, True
