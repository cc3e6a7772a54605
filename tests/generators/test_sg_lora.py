"""SG-LoRA: the divergence, the bound, where gradients go, and what is drawn."""

from __future__ import annotations

import matrix
import pytest
import torch

from hypergen.conditions import HashingEncoder
from hypergen.errors import ConditionError, SpecError, WeightsError
from hypergen.generators import (
    ELBO,
    Distillation,
    Generator,
    Mixture,
    MLPGenerator,
    Reconstruction,
    SGLoRA,
)
from hypergen.generators.library import Experts
from hypergen.generators.sg_lora import gaussian_kl

SPEC = matrix.spec("lora")
ENCODER = HashingEncoder(32)
TEXTS = ["even digits", "odd digits", "round ones", "a seven or a nine"]
ASKED = ["an odd digit", "is it round", "seven"]


def weights(count: int = 4, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    return SPEC.from_flat(2 + 3 * torch.randn(count, SPEC.numel, generator=generator))


def made(**options) -> SGLoRA:
    torch.manual_seed(0)
    options = {"latent": 5, "hidden": 16, "top_k": 2, **options}
    return SGLoRA.from_weights(weights(), TEXTS, ENCODER, **options)


def batch_of(net: SGLoRA) -> dict:
    return {"condition": net.encode(text=TEXTS), "weights": weights().flat()}


def bound(net: SGLoRA) -> ELBO:
    return ELBO(net.mean, net.std)


def stepped(net: SGLoRA, steps: int = 3) -> SGLoRA:
    optimizer, net = torch.optim.Adam(net.parameters(), lr=0.02), net.train()
    for _ in range(steps):
        optimizer.zero_grad()
        net.loss(batch_of(net), bound(net)).backward()
        optimizer.step()
    optimizer.zero_grad()
    return net.eval()


# -- the divergence and the bound ------------------------------------------------------------


def test_the_divergence_is_that_of_torch_and_zero_between_equals():
    draw = torch.Generator().manual_seed(0)
    a, b = ([torch.randn(6, 4, generator=draw) for _ in range(2)] for _ in range(2))
    assert float(gaussian_kl((a[0], a[1]), (a[0], a[1])).abs().max()) < 1e-6
    normal = [torch.distributions.Normal(m, (0.5 * v).exp()) for m, v in (a, b)]
    expected = torch.distributions.kl_divergence(*normal).sum(-1)
    assert torch.allclose(gaussian_kl((a[0], a[1]), (b[0], b[1])), expected, rtol=1e-4)


def test_the_bound_is_half_the_error_and_the_divergence_for_each_entry():
    net = made()
    objective, out = bound(net), weights(seed=1)
    batch = {"weights": weights().flat(), "kl": torch.tensor(7.0)}
    error = Reconstruction(net.mean, net.std)(out, batch)
    assert torch.allclose(objective(out, batch), 0.5 * error + 7 / SPEC.numel)
    assert objective.needs == {"weights"}
    plain = MLPGenerator(SPEC, ENCODER, hidden=8, depth=1)
    with pytest.raises(SpecError, match="posterior"):
        plain.loss({**batch_of(net)}, objective)


def test_the_weight_of_the_divergence_grows_from_zero():
    net = made(kl_weight=0.5, kl_steps=4).train()
    seen = []

    class Spy(ELBO):
        def forward(self, weights, batch):
            seen.append(batch["kl"].item())
            return super().forward(weights, batch)

    for _ in range(6):
        net.loss(batch_of(net), Spy(net.mean, net.std))
    full = seen[-1]
    assert full > 0
    assert [s / full for s in seen] == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1], rel=1e-5)
    assert int(net.steps) == 6
    condition, left = net.encode(text=TEXTS), net.left_out({"condition": None})
    assert left is None
    kl = gaussian_kl(net.posterior(weights().flat(), condition), net.prior(condition)).mean()
    assert full == pytest.approx(0.5 * kl.item(), rel=1e-5)


def test_gradients_reach_encoder_decoder_and_prior():
    net = stepped(made()).train()
    net.loss(batch_of(net), bound(net)).backward()
    for part in ("posterior_network", "posterior_head", "prior_network", "prior_head", "decoder"):
        grads = [p.grad for p in getattr(net, part).parameters()]
        assert all(g is not None and bool(g.abs().any()) for g in grads), part
    assert all(bool(torch.isfinite(p.grad).all()) for p in net.parameters() if p.grad is not None)
    # Even with no weight, stored weights are encoded and decoded; the prior then learns nothing.
    free = stepped(made(kl_weight=0.0)).train()
    free.loss(batch_of(free), bound(free)).backward()
    assert all(not bool(p.grad.abs().any()) for p in free.prior_head.parameters())
    assert bool(free.posterior_head.weight.grad.abs().any())


def test_training_lowers_the_bound_and_reconstructs():
    net = made()
    before = net.loss(batch_of(net), bound(net)).item()
    stepped(net, 60)
    after = net.loss(batch_of(net), bound(net)).item()
    assert before == pytest.approx(0.5, abs=0.3)  # the start is the mean of the experts
    assert after < 0.3 * before


def test_a_mixture_sees_what_was_encoded_and_others_the_prior():
    net = stepped(made())
    batch, objective = batch_of(net), bound(net)
    mixed = net.loss(batch, Mixture([objective, Reconstruction(net.mean, net.std)]))
    alone = net.loss(batch, objective)
    assert mixed.item() > alone.item()
    plain = net.loss(batch, Reconstruction(net.mean, net.std))
    expected = Reconstruction(net.mean, net.std)(net(batch["condition"]), batch)
    assert torch.equal(plain, expected)
    assert not isinstance(Distillation(lambda w, x: x), ELBO)


def test_shared_conditions_are_gathered():
    net = stepped(made())
    whole = batch_of(net)
    order = torch.tensor([2, 0, 2])
    shared = {
        "condition": whole["condition"],
        "gather": order,
        "weights": whole["weights"][order],
    }
    apart = {"condition": whole["condition"][order], "weights": whole["weights"][order]}
    loss = net.loss(shared, bound(net))
    assert torch.allclose(loss, net.loss(apart, bound(net)))


# -- the prior -------------------------------------------------------------------------------


def test_the_prior_follows_similar_experts_and_leaves_out_ones_own():
    net = stepped(made(top_k=1))
    found = Experts.encode(weights(), TEXTS, ENCODER)
    net.fill(Experts(found.weights, found.pooled, found.owner, torch.arange(4), found.names))
    condition = net.encode(text=TEXTS)
    assert torch.equal(net.mix(condition), torch.eye(4))
    batch = {"condition": condition, "tasks": torch.arange(4)}
    without = net.train().left_out(batch)
    assert without is not None
    assert torch.equal(without, torch.eye(4, dtype=torch.bool))
    assert not bool(net.mix(condition, without).diag().any())
    assert net.eval().left_out(batch) is None
    own, others = net.prior(condition)[0], net.prior(condition, without)[0]
    assert (own - others).abs().max().item() > 1e-4


def test_weights_are_normalised_by_the_experts():
    net = made(floor=0.0)
    flat = weights().flat()
    assert torch.allclose(net.mean, flat.mean(0))
    assert torch.allclose(net.std, flat.std(0, correction=0), rtol=1e-4)
    assert torch.allclose(net.generate(ASKED).flat(), flat.mean(0).expand(3, -1))  # the start
    floored = made(floor=10.0)
    assert torch.allclose(floored.std, 10 * flat.std(0, correction=0).median().expand(SPEC.numel))


# -- drawing ---------------------------------------------------------------------------------


def test_draws_depend_on_condition_and_seed_alone():
    net = stepped(made())
    first = net.generate(ASKED, n=2, seed=3).flat()
    assert torch.equal(first, net.generate(ASKED, n=2, seed=3).flat())
    assert float((first[0] - first[1]).abs().max()) > 1e-4  # seeds 3 and 4
    for i, text in enumerate(ASKED):
        alone = net.generate(text, n=2, seed=3).flat()
        assert torch.allclose(alone, first[2 * i : 2 * i + 2], atol=1e-5)
    again = net.generate(ASKED, seed=4).flat()
    assert torch.allclose(again, first[1::2], atol=1e-5)


def test_draws_are_those_of_the_prior():
    net = stepped(made())
    condition = net.encode(text=ASKED)
    mean, log_variance = (x.detach() for x in net.prior(condition))
    still = stepped(made(spread=0.0))
    assert torch.allclose(still.generate(ASKED).flat(), net(condition).flat(), atol=1e-5)
    seen = []
    net.decode = lambda z, condition: seen.append(z) or SPEC.neutral(len(z))
    net.sample(condition[[0] * 400], list(range(400)))
    z = (seen[0].detach() - mean[0]) / (0.5 * log_variance[0]).exp()
    assert float(z.mean()) == pytest.approx(0, abs=0.1)
    assert float(z.std()) == pytest.approx(1, abs=0.1)


def test_it_is_saved_with_experts_statistics_and_steps(tmp_path):
    net = stepped(made())
    net.save_pretrained(tmp_path / "generator")
    loaded = Generator.from_pretrained(tmp_path / "generator")
    assert isinstance(loaded, SGLoRA)
    assert int(loaded.steps) == 3
    assert torch.equal(loaded.generate(ASKED, seed=5).flat(), net.generate(ASKED, seed=5).flat())
    empty = SGLoRA(SPEC, ENCODER, latent=5, hidden=16, top_k=2)
    empty.load_tensors(net.state_dict())
    assert torch.equal(empty.generate(ASKED).flat(), net.generate(ASKED).flat())


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConditionError, match="no described experts"):
        SGLoRA(SPEC, ENCODER, latent=2, hidden=8).generate("odd")
    other = matrix.spec("lora_alpha")
    with pytest.raises(WeightsError, match="another spec"):
        made().fill(Experts.encode(other.neutral(1), ["a"], ENCODER))
    for options in ({"latent": 0}, {"kl_weight": -1.0}, {"top_k": 0}, {"temperature": 0.0}):
        with pytest.raises(SpecError):
            made(**options)
