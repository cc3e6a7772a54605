from __future__ import annotations

import torch

from hypergen.conditions import Condition
from hypergen.generators.diffusion.conditioning import Guidance, dropped
from hypergen.generators.diffusion.denoiser import Denoiser

NULL = torch.full((3,), 9.0)
CONDITION = Condition.from_tokens(
    torch.arange(18.0).view(3, 2, 3), torch.tensor([[True, True], [True, False], [True, True]])
)


def test_dropped_rows_say_nothing_and_others_are_left_alone():
    out = dropped(CONDITION, torch.tensor([False, True, True]), NULL)
    assert torch.equal(out.tokens[0], CONDITION.tokens[0])
    assert torch.equal(out.mask[0], CONDITION.mask[0])
    for row in (1, 2):
        assert torch.equal(out.tokens[row], torch.stack([NULL, torch.zeros(3)]))
        assert out.mask[row].tolist() == [True, False]
        assert torch.equal(out.pooled[row], NULL)


class Counting(Denoiser):
    """Predicts the sum of its pooled condition, and counts how often it is called."""

    def __init__(self):
        super().__init__(2, 1, torch.zeros(2, 3), torch.ones(2, 1, dtype=torch.bool), 3, {})
        self.reads = self.steps = 0

    def read(self, condition):
        self.reads += 1
        return condition.pooled.sum(1)

    def step(self, x, time, memory):
        self.steps += 1
        return memory[:, None, None].expand_as(x) + time[:, None, None]

    def forward(self, x, time, condition):
        return self.step(x, time, self.read(condition))


def test_guidance_is_one_batched_call():
    x, time = torch.zeros(3, 2, 1), torch.tensor([0.1, 0.2, 0.3])
    net = Counting()
    guided = Guidance(net, 3.0, NULL)
    memory = guided.read(CONDITION)
    out = guided.step(x, time, memory)
    known, nothing = CONDITION.pooled.sum(1) + time, 27 + time
    expected = nothing + 3 * (known - nothing)
    assert torch.allclose(out, expected[:, None, None].expand_as(out))
    assert (net.reads, net.steps) == (1, 1)
    plain = Guidance(net, 1.0, NULL)
    assert torch.allclose(plain.step(x, time, plain.read(CONDITION))[:, 0, 0], known)
