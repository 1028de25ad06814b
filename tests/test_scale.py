"""Sizes past 32-bit indices or past one tile: strides and tensors of more than 2^31 elements, long rows, many rows, a
plane of 8192 x 8192. The largest tensors are for TRIDENT_TESTS=all."""

import math
from pathlib import Path

import numpy
import pytest
import torch

import trident.functional as T
from tests.test_laws import DEVICE, OPERATORS, Recorder, close, double, gradients_of, leaves, make, run
from trident.cases import CASES
from trident.cases.case import EVERYTHING
from trident.runtime import launch

pytestmark = [
    pytest.mark.skipif(DEVICE != "cpu", reason="memory that nothing touches is free on a CPU only"),
    pytest.mark.skipif(launch.INTERPRETED, reason="minutes a test in the interpreter"),
]
PAST = 2**31


def far(x: torch.Tensor) -> torch.Tensor:
    """Equal to x, a tensor of float32; its last index along dimension 0 lies 2^31 elements behind the first one, in a
    mapping whose other pages nobody touches, so that it takes no memory."""
    stride = math.ceil(PAST / (x.shape[0] - 1)) + x[0].numel()
    home = torch.from_numpy(numpy.zeros(stride * (x.shape[0] - 1) + x[0].numel(), numpy.float32))
    return home.as_strided(x.shape, (stride, *x[0].contiguous().stride())).copy_(x.detach()).requires_grad_()


FAR = {name: case for name, case in OPERATORS.items() if not case.random and case.shapes[0][0] > 1}


@pytest.mark.once  # addresses are the compiler's own work, the same for both kinds of code
@pytest.mark.parametrize("case", FAR.values(), ids=FAR)
def test_strides_past_32_bits(case):
    inputs = make(case, case.shapes[0], torch.float32)  # whose kernels the laws have compiled
    distant = [far(inputs[0]), *inputs[1:]]
    assert distant[0][-1].storage_offset() >= PAST
    close(run(case.ours, distant), run(case.ours, inputs), torch.float32, case.reduced(case.shapes[0]))


def check(case, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> None:
    """As the law of values."""
    inputs = make(case, shape, dtype)
    with Recorder() as recorder:
        actual = run(case.ours, inputs)
    assert recorder.calls
    dy = [g.to(torch.float64) for g in gradients_of(actual[: len(actual) - len(leaves(inputs))])]
    close(actual, run(case.exact or case.reference, double(inputs), dy), dtype, case.reduced(shape))


ROWS = ("softmax", "log_softmax", "logsumexp", "layer_norm", "rms_norm", "normalize", "cosine_similarity", "glu")
ROWS += ("cross_entropy", "nll_loss", "sum.rows", "var_mean", "amin", "max.rows", "argmax", "multi_margin_loss")
LENGTHS = {"262144": (2, 262144), "2^20 rows": (1 << 20, 3)}
if EVERYTHING:  # most of their cases have one
    LENGTHS["65537"] = (2, 65537)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("name", ROWS)
def test_rows(name, length):
    M, N = LENGTHS[length]
    check(CASES[name], (M, N + N % 2) if name == "glu" else (M, N))


PLANES = ("adaptive_avg_pool2d", "max_pool2d", "avg_pool2d", "instance_norm", "group_norm", "batch_norm", "pad")
PLANES += ("interpolate", "adaptive_max_pool2d", "pad.reflect", "interpolate.bilinear_less", "local_response_norm")


def test_plane_forward():
    """What CI has time for: the laws' float64 references take half a minute each."""
    x = torch.rand(1, 1, 8192, 8192)
    assert torch.equal(T.max_pool2d(x, 3, 2, 1), torch.nn.functional.max_pool2d(x, 3, 2, 1))
    torch.testing.assert_close(
        T.adaptive_avg_pool2d(x, 7), torch.nn.functional.adaptive_avg_pool2d(x.double(), 7).float()
    )
    torch.testing.assert_close(T.pad(x, (1, 2, 3, 4), "reflect")[..., 3:-4, 1:-2], x, rtol=0, atol=0)


@pytest.mark.skipif(not EVERYTHING, reason="half a minute each: for TRIDENT_TESTS=all")
@pytest.mark.parametrize("name", PLANES)
def test_plane(name):
    """One plane of 8192 x 8192; the operators that enlarge it get a quarter of it."""
    size = 4096 if name == "interpolate" else 8192
    channels = {"group_norm": 6, "local_response_norm": 1}.get(name, 1)
    check(CASES[name], (1, channels, size, size // channels))


def available() -> int:
    """Bytes of memory that are free or can be."""
    (line,) = (line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemAvailable"))
    return int(line.split()[1]) << 10


@pytest.fixture
def memory():
    if not EVERYTHING:
        pytest.skip("gigabytes: for TRIDENT_TESTS=all")
    if available() < 6 << 30:
        pytest.skip(f"needs 6 GiB of memory, {available() >> 20} MiB are available")


M, N = 33000, 65536  # 2.16e9 elements


@pytest.mark.usefixtures("memory")
class TestMoreElementsThan32Bits:
    """The tensors are one row or one column, expanded: 2^31 results of float16 take 4.3 GB, inputs nothing."""

    row = torch.linspace(-3, 3, N, dtype=torch.float16).expand(M, N)
    column = torch.linspace(-3, 3, M, dtype=torch.float16)[:, None].expand(M, N)

    @pytest.mark.parametrize("name", ("relu", "gelu", "silu", "softmax", "rms_norm"))
    def test_results(self, name):
        arguments = {"softmax": (-1,), "rms_norm": ((N,),)}.get(name, ())
        found = getattr(T, name)(self.row, *arguments)
        assert found.numel() > PAST
        expected = getattr(T, name)(self.row[:1], *arguments)
        assert all(torch.equal(part, expected.expand(part.shape)) for part in found.split(1000))

    @pytest.mark.parametrize("name", ("amax", "sum", "logsumexp", "mean", "var"))
    def test_reductions_of_rows(self, name):
        found = getattr(T, name)(self.row, -1)
        assert torch.equal(found, getattr(T, name)(self.row[:1], -1).expand(M))

    def test_reductions_of_everything(self):
        first = int(self.column[:, 0].argmax()) * N  # float16 rounds the last six rows to 3
        assert T.argmax(self.column) == first > PAST
        assert T.amax(self.column) == 3
        assert T.mean(self.column).abs() < 1e-3
