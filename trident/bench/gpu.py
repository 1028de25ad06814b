"""Timers of GPUs: CUDA events around a block of calls, or around the replay of a graph that holds them.

A graph has no host in it, so it times the kernels also where launching them takes longer. What cannot be captured (a
call that synchronizes, or allocates otherwise than through torch) is timed by events.
"""

import torch

from trident.bench.timing import Call, Timer, Variant

CAPTURED = 20  # calls in a graph: rotated inputs, and events' resolution of 0.5 us


def events(call: Call, repeat: int) -> float:
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(repeat):
        call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3


def captured(variant: Variant) -> Timer | None:
    """Times replays of a graph of the variant's calls; None where they cannot be captured."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with variant.context(), torch.cuda.stream(side):
        for _ in range(3):  # what is allocated or tuned at first calls, autograd's too, must be before the capture
            variant.call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    try:
        with variant.context(), torch.cuda.graph(graph):
            for _ in range(CAPTURED):
                variant.call()
    except RuntimeError:
        torch.cuda.synchronize()
        return None
    return lambda call, repeat: events(graph.replay, repeat) / CAPTURED
