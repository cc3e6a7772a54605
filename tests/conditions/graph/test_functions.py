"""Shapes and types that a trace works out itself are those that torch computes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from hypergen.conditions.graph import trace
from hypergen.conditions.graph.inputs import Example
from hypergen.conditions.graph.tracer import TraceError, record_dispatch


class Call(nn.Module):
    """One function of the input and of parameters of some shapes."""

    def __init__(self, function, *shapes):
        super().__init__()
        self.function = function
        self.weights = nn.ParameterList(nn.Parameter(torch.rand(s)) for s in shapes)

    def forward(self, x):
        self.result = self.function(x, *self.weights)
        return self.result


def check(function, x, *shapes):
    """Compares what a trace hands on with what torch computes; returns the last operation."""
    module = Call(function, *shapes)
    real = module(x)
    record = record_dispatch(module, Example((x,)))
    traced = module.result
    assert traced.shape == real.shape
    assert traced.dtype == real.dtype
    assert record.outputs
    return record.calls[-1].op


IMAGE, SEQUENCE = (2, 4, 9, 7), (2, 5, 6)
CALLS = {
    "linear": (lambda x, w, b: F.linear(x, w, b), SEQUENCE, (3, 6), (3,)),
    "matmul": (lambda x, w: x @ w, SEQUENCE, (2, 6, 3)),
    "attention": (
        lambda x, k: F.scaled_dot_product_attention(x, k, k[..., :3]),
        (2, 2, 5, 4),
        (2, 2, 7, 4),
    ),
    "conv1d": (lambda x, w: F.conv1d(x, w, None, 2, 1, 2), (2, 4, 12), (3, 4, 3)),
    "conv2d": (lambda x, w, b: F.conv2d(x, w, b, (2, 1), (1, 0)), IMAGE, (5, 4, 3, 2), (5,)),
    "conv2d_depthwise": (
        lambda x, w: F.conv2d(x, w, padding="same", groups=4),
        IMAGE,
        (4, 1, 3, 3),
    ),
    "conv2d_grouped": (lambda x, w: F.conv2d(x, w, padding="valid", groups=2), IMAGE, (6, 2, 3, 3)),
    "conv3d": (lambda x, w: F.conv3d(x, w, stride=2), (1, 2, 5, 5, 5), (3, 2, 2, 2, 2)),
    "conv_transpose2d": (
        lambda x, w: F.conv_transpose2d(x, w, stride=2, padding=1, output_padding=1),
        IMAGE,
        (4, 3, 3, 3),
    ),
    "max_pool": (lambda x: F.max_pool2d(x, 3, 2, 1), IMAGE),
    "avg_pool": (lambda x: F.avg_pool2d(x, (3, 2)), IMAGE),
    "adaptive_avg_pool": (lambda x: F.adaptive_avg_pool2d(x, (3, None)), IMAGE),
    "global_avg_pool": (lambda x: F.adaptive_avg_pool2d(x, 1), IMAGE),
    "adaptive_max_pool": (lambda x: F.adaptive_max_pool2d(x, 2), IMAGE),
    "layer_norm": (lambda x, w: F.layer_norm(x, (6,), w), SEQUENCE, (6,)),
    "rms_norm": (lambda x, w: F.rms_norm(x, (6,), w), SEQUENCE, (6,)),
    "group_norm": (lambda x: F.group_norm(x, 2), IMAGE),
    "glu": (lambda x: F.glu(x, 1), IMAGE),
    "gelu": (lambda x: F.gelu(x), SEQUENCE),
    "softmax": (lambda x: F.softmax(x, -1, dtype=torch.float64), SEQUENCE),
    "upsample": (lambda x: F.interpolate(x, scale_factor=2), IMAGE),
    "pixel_shuffle": (lambda x: F.pixel_shuffle(x, 2), IMAGE),
    "bilinear": (lambda x, w: F.bilinear(x, x, w), (2, 3), (4, 3, 3)),
    "cat": (lambda x, w: torch.cat([x, w], -1), SEQUENCE, (2, 5, 3)),
    "pow": (lambda x: x**3, SEQUENCE),
    "add": (lambda x, w: x - w, SEQUENCE, (5, 1)),
    "mul": (lambda x, w: x / w, (5, 1), (2, 1, 6)),
}


@pytest.mark.parametrize("op", CALLS)
def test_a_function_returns_what_torch_returns(op):
    function, size, *shapes = CALLS[op]
    assert check(function, torch.rand(size), *shapes) == op


@pytest.mark.parametrize(
    "function",
    [
        lambda x, w: F.max_pool2d(x, 2, ceil_mode=True),
        lambda x, w: F.max_pool2d(x, 2, return_indices=True)[0],
        lambda x, w: F.conv2d(x[0], w, padding=1),
        lambda x, w: torch.add(x, x, alpha=2),
        lambda x, w: x.double() * x,
        lambda x, w: x * torch.arange(7),
        lambda x, w: torch.stack([x, x * 2]),
        lambda x, w: 1 - x,
        lambda x, w: 2 / (x + 1),
        lambda x, w: x.clone().add_(1).relu_(),
        lambda x, w: torch.baddbmm(x[0], x[0], x[0].transpose(1, 2) @ x[0]),
        lambda x, w: torch.addmm(w[0, 0, 0], x[0, 0].T, x[0, 1, :, :3]),
        lambda x, w: (x @ x.new_ones(7)).exp(),
        lambda x, w: torch.einsum("bchw,ocij->bohw", x, w),
    ],
)
def test_what_no_rule_covers_is_left_to_torch(function):
    check(function, torch.rand(IMAGE), (5, 4, 3, 3))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([1, 2, 3]), max_size=3),
    st.lists(st.sampled_from([1, 2, 3]), max_size=3),
)
def test_broadcasting_is_that_of_torch(left, right):
    x = torch.rand(left)
    module = Call(torch.mul, right)
    try:
        expected = module(x).shape
    except RuntimeError:
        with pytest.raises(TraceError, match="mul"):
            record_dispatch(module, Example((x,)))
    else:
        record_dispatch(module, Example((x,)))
        assert module.result.shape == expected


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_recurrent_layers_return_what_torch_returns(kind, packed):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = getattr(nn, kind)(4, 5, 2, bidirectional=True)

        def forward(self, x):
            if packed:
                x = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([6, 4]))
            out, self.state = self.rnn(x)
            self.out = nn.utils.rnn.pad_packed_sequence(out)[0] if packed else out
            return self.out

    net, x = Net(), torch.rand(6, 2, 4)
    expected = net(x).shape
    states = [s.shape for s in (net.state if kind == "LSTM" else [net.state])]
    record_dispatch(net, Example((x,)))
    assert net.out.shape == expected
    assert [s.shape for s in (net.state if kind == "LSTM" else [net.state])] == states


def test_an_attention_that_is_spelt_out_is_the_one_operation():
    class Attention(nn.Module):
        def __init__(self, fused):
            super().__init__()
            self.fused = fused
            self.q, self.k, self.v = (nn.Linear(6, 6) for _ in range(3))

        def forward(self, x):
            q, k, v = self.q(x), self.k(x), self.v(x)
            if self.fused:
                return F.scaled_dot_product_attention(q, k, v)
            mask = torch.ones(x.shape[1], x.shape[1]).tril().log()
            return torch.softmax(q @ k.transpose(1, 2) / 6**0.5 + mask, -1) @ v

    graphs = [trace(Attention(fused), SEQUENCE) for fused in (True, False)]
    nodes = [[(n.kind, n.op) for n in g.nodes] for g in graphs]
    assert nodes[0] == nodes[1]
    assert graphs[0].edges == graphs[1].edges
