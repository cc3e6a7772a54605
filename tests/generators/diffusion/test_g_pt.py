"""G.pt: weights, their metric and the wanted one → other weights."""

from __future__ import annotations

import pytest
import torch

from hypergen.conditions import FusedEncoder, MetricEncoder, WeightsEncoder
from hypergen.errors import ConditionError, SpecError
from hypergen.generators import Generator
from hypergen.generators.diffusion import Denoiser, Denoising, GPt, UpdateDenoiser
from hypergen.specs import TokenLayout
from hypergen.zoo.networks import MLP

SPEC = MLP(3, (4,), 2).spec()
DIT = {"name": "DiT", "width": 16, "depth": 1, "heads": 2}
RPG = {"name": "RecurrentDenoiser", "width": 16, "layers": 1, "heads": 2, "hidden": 16, "depth": 1}


def encoder():
    weights = WeightsEncoder.from_layout(TokenLayout(SPEC, 5), dim=8, pool=True)
    metric = MetricEncoder(dim=8, log=True)
    metric.fit(torch.tensor([0.01, 1.0]))
    return FusedEncoder({"weights": weights, "metric": metric}, dim=8)


def make(denoiser=DIT, **options):
    torch.manual_seed(0)
    process = {"name": "Diffusion", "prediction": "data", "steps": 4}
    codec = {"name": "TokenCodec", "size": 5, "normalize": "slot"}
    return GPt(SPEC, encoder(), codec, denoiser, process, **options)


class Data:
    """Training checkpoints, for statistics alone."""

    def training_weights(self):
        g = torch.Generator().manual_seed(0)
        return 0.5 + 2 * torch.randn(20, SPEC.numel, generator=g)


def trained(denoiser=DIT, **options):
    """One that moves: all that starts at zero is random."""
    net = make(denoiser, **options)
    net.prepare(Data())
    torch.manual_seed(1)
    for parameter in net.denoiser.parameters():
        if float(parameter.detach().abs().max()) == 0:
            torch.nn.init.normal_(parameter, std=0.1)
    return net.eval()


def batch(rows=6, seed=0):
    g = torch.Generator().manual_seed(seed)
    flat = torch.randn(2, rows, SPEC.numel, generator=g)
    metric = 0.05 + 0.9 * torch.rand(rows, 2, generator=g)
    return {"weights": flat[0], "raw": {"weights": flat[1], "metric": metric}}


@pytest.mark.parametrize("denoiser", [DIT, RPG], ids=["dit", "rpg"])
@pytest.mark.parametrize("fitted", [False, True])
def test_before_training_it_returns_the_current_weights(denoiser, fitted):
    net = make(denoiser)
    if fitted:
        net.prepare(Data())
    given = torch.randn(3, SPEC.numel)
    out = net.generate(weights=given, metric=[[0.5, 0.1], [0.5, 0.9], [0.2, 0.2]], seed=3)
    torch.testing.assert_close(out.flat(), given, rtol=1e-4, atol=1e-4)


def test_the_first_loss_is_the_distance_between_the_two():
    net = make()
    net.prepare(Data())
    b = batch()
    condition = net.encode(**b["raw"])
    expected = (net.to_latents(b["weights"]) - net.to_latents(b["raw"]["weights"])).square()
    real = net.codec.mask
    loss = net.loss({**b, "condition": condition}, Denoising())
    torch.testing.assert_close(loss, (expected * real).sum((1, 2)).mean() / real.sum())


@pytest.mark.parametrize("denoiser", [DIT, RPG], ids=["dit", "rpg"])
def test_prompt_and_weights_reach_every_token(denoiser):
    net = trained(denoiser)
    flat = torch.randn(1, SPEC.numel)

    def latents(weights, metric):
        return net.to_latents(net.generate(weights=weights, metric=[metric]).flat())[0]

    base = latents(flat, [0.5, 0.1])
    assert (latents(flat, [0.5, 0.9]) - base).abs().amax(-1).gt(1e-5).all()
    assert (latents(flat, [0.9, 0.1]) - base).abs().amax(-1).gt(1e-5).all()
    assert (latents(flat + 0.5, [0.5, 0.1]) - base).abs().amax(-1).gt(1e-5).all()


def test_gradients_reach_encoder_and_denoiser():
    net = trained().train()
    b = batch()
    net.loss({**b, "condition": net.encode(**b["raw"])}, Denoising()).backward()
    silent = {n for n, p in net.named_parameters() if p.grad is None or p.grad.abs().sum() == 0}
    assert silent <= {"null"}


def test_rows_and_seeds():
    net = trained()
    flat = torch.randn(3, SPEC.numel)
    metric = torch.tensor([[0.5, 0.1], [0.4, 0.2], [0.3, 0.3]])
    whole = net.generate(weights=flat, metric=metric, seed=2).flat()
    one = net.generate(weights=flat[1:2], metric=metric[1:2], seed=2).flat()
    torch.testing.assert_close(whole[1:2], one)
    assert torch.equal(net.generate(weights=flat, metric=metric, seed=2).flat(), whole)
    assert not torch.equal(net.generate(weights=flat, metric=metric, seed=3).flat(), whole)


def test_prompt_is_generate():
    net = trained()
    flat = torch.randn(2, SPEC.numel)
    ours = net.prompt(SPEC.from_flat(flat), 0.5, [0.1, 0.2], seed=1)
    metric = [[0.5, 0.1], [0.5, 0.2]]
    assert torch.equal(ours.flat(), net.generate(weights=flat, metric=metric, seed=1).flat())
    assert ours.provenance["wanted"] == pytest.approx([0.1, 0.2])


def test_recursive_prompts_start_from_the_last_result():
    net = trained()
    flat = torch.randn(2, SPEC.numel)
    seen = []

    def measure(weights):
        seen.append(weights.flat())
        return torch.tensor([0.3, 0.4])

    out = net.prompt(flat, 0.5, 0.1, seed=5, recursive=2, measure=measure)
    assert len(seen) == 1  # after the last prompt there is nothing to tell
    first = net.prompt(flat, 0.5, 0.1, seed=5)
    assert torch.equal(seen[0], first.flat())
    again = net.prompt(first, [0.3, 0.4], 0.1, seed=6)
    assert torch.equal(out.flat(), again.flat())
    believed = net.prompt(flat, 0.5, 0.1, seed=5, recursive=2)
    assert torch.equal(believed.flat(), net.prompt(first, 0.1, 0.1, seed=6).flat())


def test_a_walk_shares_its_noise():
    net = trained()
    flat = torch.randn(2, SPEC.numel)
    out = net.walk(flat, [0.5, 0.6], [0.1, 0.2, 0.3], seed=4)
    assert len(out) == 6
    alone = net.prompt(flat[1:], 0.6, 0.2, seed=4)
    torch.testing.assert_close(out.flat()[4:5], alone.flat())


def test_guidance_leaves_the_current_weights():
    net = trained(condition_dropout=0.1, guidance=2.0)
    plain = trained(condition_dropout=0.1, guidance=1.0)
    plain.load_tensors(net.state_dict())
    flat = torch.randn(2, SPEC.numel)
    a, b = (n.prompt(flat, 0.5, 0.1).flat() for n in (net, plain))
    assert not torch.allclose(a, b)


def test_saved_and_loaded(tmp_path):
    net = trained()
    flat = torch.randn(2, SPEC.numel)
    expected = net.prompt(flat, 0.5, 0.1).flat()
    net.save_pretrained(tmp_path / "g")
    again = Generator.from_pretrained(tmp_path / "g")
    assert isinstance(again, GPt)
    assert torch.equal(again.prompt(flat, 0.5, 0.1).flat(), expected)
    weights = again.generate(weights=flat, metric=[[0.5, 0.1], [0.5, 0.1]])
    weights.save(tmp_path / "w.safetensors")  # its provenance is plain text


def test_bad_input_is_told():
    net = trained()
    flat = torch.randn(2, SPEC.numel)
    with pytest.raises(ConditionError, match="give weights="):
        net.generate(metric=[[0.5, 0.1]])
    with pytest.raises(ConditionError, match="3 metric values were given for 2"):
        net.prompt(flat, 0.5, [0.1, 0.2, 0.3])
    with pytest.raises(ConditionError, match="at least 1"):
        net.prompt(flat, 0.5, 0.1, recursive=0)
    with pytest.raises(ConditionError, match="must be above 0"):
        net.prompt(flat, 0.5, 0.0)
    with pytest.raises(ConditionError, match=r"\[1, 5\]"):
        net.prompt(torch.zeros(5), 0.5, 0.1)
    with pytest.warns(UserWarning, match="far outside of what was trained"):
        net.prompt(flat, 0.5, 1e-6)
    with pytest.raises(SpecError, match="predicts data"):
        GPt(SPEC, encoder(), process={"name": "Diffusion", "prediction": "noise"})


def test_it_has_no_memoriser():
    with pytest.raises(SpecError, match="no memoriser"):
        make().memoriser(torch.zeros(2, SPEC.numel))


def test_the_denoiser_alone_wants_weights():
    layout = TokenLayout(SPEC, 5)
    shape = (len(layout), 5, layout.positions, layout.mask, 8)
    net = Denoiser.from_dict({"name": "UpdateDenoiser", "denoiser": DIT}, *shape)
    assert isinstance(net, UpdateDenoiser)
    condition = encoder()(batch()["raw"])
    x = torch.zeros(6, len(layout), 5)
    bare = type(condition)(condition.tokens, condition.mask, condition.pooled)
    with pytest.raises(ConditionError, match="changes given weights"):
        net(x, torch.rand(6), bare)
