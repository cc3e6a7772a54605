"""Learned routing: its start, its coefficients, and what training must not see."""

from __future__ import annotations

import matrix
import pytest
import torch

from hypergen.conditions import Condition, HashingEncoder
from hypergen.errors import SpecError
from hypergen.generators import Generator, RoutedExperts, WeightedExperts
from hypergen.generators.library import Experts

TEXTS = ["even digits", "odd digits", "round ones", "a seven or a nine"]
ASKED = ["an odd digit", "is it round", "seven"]
SPEC = matrix.spec("lora")
ENCODER = HashingEncoder(32)


def experts():
    flat = torch.randn(4, SPEC.numel, generator=torch.Generator().manual_seed(0))
    return SPEC.from_flat(flat)


def routed(**options) -> RoutedExperts:
    torch.manual_seed(0)
    return RoutedExperts.from_weights(experts(), TEXTS, ENCODER, hidden=8, **options)


def stepped(net: RoutedExperts) -> RoutedExperts:
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    target = experts().flat()[0]
    for _ in range(3):
        optimizer.zero_grad()
        (net(net.encode(text=ASKED)).flat() - target).square().mean().backward()
        optimizer.step()
    return net.eval()


@pytest.mark.parametrize("blocks", ["module", "slot"])
@pytest.mark.parametrize("coefficients", ["softmax", "free"])
def test_it_starts_as_the_weighted_mean_and_learns(blocks, coefficients):
    net = routed(blocks=blocks, coefficients=coefficients, temperature=0.1)
    plain = WeightedExperts.from_weights(experts(), TEXTS, ENCODER, top_k=None, temperature=0.1)
    start = net.generate(ASKED).flat()
    assert torch.allclose(start, plain.generate(ASKED).flat(), atol=1e-5)
    target = experts().flat()[0]
    learned = stepped(net).generate(ASKED).flat()
    assert float((learned - target).square().mean()) < float((start - target).square().mean())


def test_blocks_are_modules_or_slots_and_get_coefficients_of_their_own():
    for blocks, count in (("module", len(SPEC) // 2), ("slot", len(SPEC))):
        net = stepped(routed(blocks=blocks))
        shares = net.route(net.encode(text=ASKED)).detach()
        assert shares.shape == (3, count, 4)
        assert torch.allclose(shares.sum(-1), torch.ones(3, count))
        assert float((shares[:, 0] - shares[:, 1]).abs().max()) > 1e-4
    net = stepped(routed())
    a, b = (SPEC.pair_names(SPEC.modules[0])[i] for i in (0, 1))
    at = [net.block_of[SPEC.names.index(name)] for name in (a, b)]
    assert at[0] == at[1]  # A and B of a module share


def test_one_hot_coefficients_give_that_expert():
    net = routed(coefficients="free", temperature=1e-6)
    out = net.generate(TEXTS)
    assert torch.equal(out.flat(), experts().flat())


def test_free_coefficients_may_be_negative_and_sum_to_anything():
    net = stepped(routed(coefficients="free"))
    shares = net.route(net.encode(text=ASKED)).detach()
    assert bool((shares < 0).any())
    assert float((shares.sum(-1) - 1).abs().max()) > 1e-3


@pytest.mark.parametrize("coefficients", ["softmax", "free"])
def test_training_leaves_out_the_experts_of_the_rows_own_task(coefficients):
    net = stepped(routed(coefficients=coefficients))
    found = Experts.encode(experts(), TEXTS, ENCODER)
    net.fill(Experts(found.weights, found.pooled, found.owner, torch.arange(4), found.names))
    condition = net.encode(text=TEXTS)
    batch = {"condition": condition, "tasks": torch.arange(4)}

    def objective(weights, batch):
        return weights.flat()[:, :8].square().sum()

    own = torch.eye(4, dtype=torch.bool)
    assert bool(
        (net.route(condition, own)[own[:, None].expand(-1, net.block_of.max() + 1, -1)] == 0).all()
    )
    expected = objective(net(condition, own), batch)
    assert torch.equal(net.train().loss(batch, objective), expected)
    assert torch.equal(net.eval().loss(batch, objective), objective(net(condition), batch))
    # Where rows share conditions, the task goes with the condition.
    shared = {
        "condition": condition,
        "tasks": torch.tensor([2, 0, 2]),
        "gather": torch.tensor([2, 0, 2]),
    }
    marked = net.train().left_out(shared)
    assert marked is not None
    assert marked.int().tolist() == [[1, 0, 0, 0], [0] * 4, [0, 0, 1, 0], [0] * 4]


def test_neighbours_do_not_matter():
    net = stepped(routed())
    together = net.generate(ASKED).flat()
    for i, text in enumerate(ASKED):
        assert torch.allclose(net.generate(text).flat()[0], together[i], atol=1e-6)


def test_experts_may_be_replaced_after_training(tmp_path):
    net = stepped(routed())
    flat = experts().flat()
    net.fill(Experts.encode(SPEC.from_flat(flat[:2].clone()), TEXTS[:2], ENCODER))
    assert net.route(net.encode(text=ASKED)).shape[-1] == 2
    net.save_pretrained(tmp_path / "generator")
    loaded = Generator.from_pretrained(tmp_path / "generator")
    assert torch.equal(loaded.generate(ASKED).flat(), net.generate(ASKED).flat())


def test_the_gradient_reaches_everything_learned():
    net = stepped(routed(coefficients="free")).train()
    condition = net.encode(text=ASKED)
    leaf = Condition(condition.tokens, condition.mask, condition.pooled.clone().requires_grad_())
    net(leaf).flat().square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.abs().any()) for p in net.parameters())
    assert leaf.pooled.grad is not None


def test_unknown_settings_are_refused():
    for options in ({"blocks": "layer"}, {"coefficients": "hard"}, {"temperature": -1.0}):
        with pytest.raises(SpecError):
            RoutedExperts(SPEC, ENCODER, **options)
