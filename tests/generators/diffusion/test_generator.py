from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

import hypergen
from hypergen.conditions import HashingEncoder, NoCondition
from hypergen.errors import ConditionError, RunError, SpecError, WeightsError
from hypergen.generators import DiffusionGenerator, Generator, Mixture, Reconstruction
from hypergen.generators.diffusion import Denoising, TokenCodec
from hypergen.specs import FullSpec

SPEC = FullSpec(nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)))
DRAW = torch.Generator().manual_seed(0)
ROWS = 2 + torch.randn(30, SPEC.numel, generator=DRAW) * (0.2 + torch.rand(SPEC.numel))
DATA = SimpleNamespace(training_weights=lambda: ROWS)
DIT = {"name": "DiT", "width": 16, "depth": 1, "heads": 2}
TEXTS = ["say yes if even", "no", "is it three?"]


def make(encoder=None, data=DATA, seed=0, **options) -> DiffusionGenerator:
    torch.manual_seed(seed)
    given = {"codec": {"name": "TokenCodec", "size": 8}, "denoiser": DIT, **options}
    process = given.setdefault("process", {"name": "FlowMatching", "steps": 3})
    net = DiffusionGenerator(SPEC, HashingEncoder(16) if encoder is None else encoder, **given)
    assert net.config["process"] == process
    if data is not None:
        net.prepare(data)
    return net.eval()


def moved(net: DiffusionGenerator) -> DiffusionGenerator:
    """As after some training: no parameter is zero any more."""
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return net


def batch(rows=8):
    encoder = HashingEncoder(16)
    return {
        "weights": ROWS[:rows],
        "condition": encoder(TEXTS),
        "gather": torch.arange(rows) % 3,
    }


# -- sampling ----------------------------------------------------------------------------------


def test_it_starts_as_gaussians_of_the_size_of_the_zoo():
    net = make(NoCondition(), process={"name": "Diffusion", "steps": 20})
    flat = net.generate(n=400).flat()
    assert torch.allclose(flat.mean(0), ROWS.mean(0), atol=0.3)
    assert torch.allclose(flat.std(0), ROWS.std(0), rtol=0.3)


@pytest.mark.parametrize("sampler", ["ddpm", "dpm++"])
def test_rows_depend_on_their_own_condition_and_seed(sampler):
    process = {"name": "Diffusion", "sampler": sampler, "steps": 4}
    net = moved(make(process=process, guidance=2.0, chunk=4))
    both = net.generate(TEXTS, n=2, seed=5).flat()
    assert torch.equal(net.generate(TEXTS, n=2, seed=5).flat(), both)
    assert not torch.equal(both[0], both[1])  # another seed
    assert not torch.equal(both[0], both[2])  # another text
    for i, text in enumerate(TEXTS):
        for draw in range(2):
            alone = net.generate(text, seed=5 + draw).flat()[0]
            assert torch.allclose(alone, both[2 * i + draw], atol=1e-5)


def test_forward_is_the_sample_of_seed_0_and_differentiable():
    net = moved(make())
    condition = net.encode(text=TEXTS)
    weights = net(condition)
    assert torch.allclose(weights.flat(), net.generate(TEXTS, seed=0).flat(), atol=1e-6)
    weights.flat().square().sum().backward()
    used = [n for n, p in net.named_parameters() if p.grad is not None and bool(p.grad.any())]
    assert {n for n, _ in net.denoiser.named_parameters()} == {
        n.removeprefix("denoiser.") for n in used if n.startswith("denoiser.")
    }


def test_nan_says_which_step_and_slot():
    net = moved(make(process={"name": "FlowMatching", "steps": 5}))
    step = net.denoiser.step

    def broken(x, time, memory):
        out = step(x, time, memory)
        return out.index_fill(1, torch.tensor(3), torch.nan) if float(time[0]) < 0.7 else out

    net.denoiser.step = broken
    where = r"in step 2 of 5 \(heun\), first in token 0 of slot '0\.bias' of network 0"
    with pytest.raises(WeightsError, match=where):
        net.generate("no")


def test_conditions_that_it_was_not_trained_with():
    free = make(NoCondition())
    assert len(free.generate(n=3)) == 3
    assert free.generate().provenance["generator"] == "DiffusionGenerator"
    with pytest.raises(ConditionError, match="trained without a condition: it takes no text"):
        free.generate("no")
    with pytest.raises(ConditionError, match="conditioned on text, but got nothing"):
        make().generate()
    with pytest.raises(ConditionError, match="conditioned on text, but got metric"):
        make().generate(metric=0.9)


# -- training ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"process": {"name": "FlowMatching"}},
        {"process": {"name": "Diffusion", "prediction": "noise", "min_snr": 5}},
        {"process": {"name": "Diffusion", "prediction": "data"}, "whiten": "global"},
        {"codec": {"name": "PCACodec", "components": 0.9}, "denoiser": "MLPDenoiser"},
        {"denoiser": {"name": "ConvDenoiser", "channels": [4, 8]}, "whiten": "none"},
        {
            "denoiser": {"name": "RecurrentDenoiser", "width": 16, "hidden": 16, "subset": 2},
            "process": {"name": "Diffusion", "prediction": "noise"},
        },
    ],
)
def test_the_loss_falls(options):
    net = make(**options).train()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    torch.manual_seed(0)
    losses = []
    for _ in range(40):
        loss = net.loss(batch(), Denoising())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-10:]) < sum(losses[:10])
    assert int(net.batches) == 40


def test_the_condition_and_the_learned_nothing_get_gradients():
    net = moved(make(condition_dropout=0.5)).train()
    torch.manual_seed(0)
    net.loss(batch(24), Denoising()).backward()
    assert bool(net.null.grad.abs().gt(0).any())
    assert make(NoCondition()).null is None


def test_validation_is_the_same_every_time():
    net = moved(make())
    values = [float(net.loss(batch(), Denoising()).detach()) for _ in range(2)]
    assert values[0] == values[1]
    assert int(net.batches) == 0


def test_other_objectives_see_the_predicted_weights():
    """The better the denoiser, the nearer what it predicts to the stored weights."""
    net = make(process={"name": "Diffusion", "prediction": "data"})
    mean, std = ROWS.mean(0), ROWS.std(0)
    mixture = Mixture([Denoising(), Reconstruction(mean, std, 0)], [0.0, 1.0])
    fresh = float(net.loss(batch(30), mixture).detach())
    assert fresh == pytest.approx(1, abs=0.1)  # it predicts the mean
    copies = net.memoriser(ROWS)
    assert float(copies.loss(batch(30), mixture)) < 0.8 * fresh
    alone = net.loss(batch(), Reconstruction(mean, std, 0))  # of weights sampled by condition
    assert float(alone.detach()) > 0


class Halves(TokenCodec):
    """A codec with something to train: a factor, which its loss pulls to 2."""

    trained = True

    def __init__(self, spec, size=8):
        super().__init__(spec, size)
        self.options = {"size": size}
        self.factor = nn.Parameter(torch.ones(()))

    def encode(self, flat):
        return super().encode(flat) * self.factor

    def decode(self, latents):
        return super().decode(latents / self.factor)

    def loss(self, flat):
        return (self.factor - 2).square() + 0 * flat.sum()


def test_the_codec_comes_first_and_then_stays():
    net = make(codec="Halves", codec_steps=30).train()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.1)
    assert net.first_stage == 30
    stages = []
    for _ in range(35):
        stages.append(net.stage)
        before = net.codec.factor.detach().clone()
        start = net.denoiser.head.weight.detach().clone()
        optimizer.zero_grad()
        net.loss(batch(), Denoising()).backward()
        optimizer.step()
        assert torch.equal(before, net.codec.factor.detach()) == (stages[-1] == 2)
        assert torch.equal(start, net.denoiser.head.weight.detach()) == (stages[-1] == 1)
    assert stages == [1] * 30 + [2] * 5
    assert float(net.codec.factor.detach()) != 1
    white = net.to_latents(ROWS)[:, net.codec.mask]
    assert torch.allclose(white.std(0, correction=0), torch.ones(SPEC.numel), atol=1e-3)
    assert torch.allclose(net.from_latents(net.to_latents(ROWS)).flat(), ROWS, atol=1e-5)


def test_what_is_whitened_stays_when_it_is_prepared_again():
    net = make()
    before = net.whitening.std.clone()
    net.prepare(SimpleNamespace(training_weights=lambda: 3 * ROWS))
    assert torch.equal(net.whitening.std, before)


def test_the_second_stage_does_not_move_the_codec():
    codec = {"name": "ConvCodec", "tokens": 2, "latent": 4, "channels": [4]}
    net = moved(make(codec=codec, codec_steps=1)).train()
    net.loss(batch(), Denoising())
    both = Mixture([Denoising(), Reconstruction(ROWS.mean(0), ROWS.std(0), 0)])
    net.loss(batch(), both).backward()
    assert net.stage == 2
    assert all(p.grad is None and p.requires_grad for p in net.codec.parameters())
    assert net.denoiser.head.weight.grad.any()


def test_validation_of_the_codec_draws_the_same_noise():
    codec = {"name": "ConvCodec", "tokens": 2, "latent": 4, "channels": [4]}
    net = make(codec=codec, codec_steps=5)
    state = torch.random.get_rng_state()
    assert torch.equal(net.loss(batch(), Denoising()), net.loss(batch(), Denoising()))
    assert torch.equal(torch.random.get_rng_state(), state)


# -- files -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"codec": {"name": "PCACodec", "components": 0.7}, "denoiser": "MLPDenoiser"},
        {"encoder": NoCondition(), "process": {"name": "Diffusion", "steps": 4}},
    ],
)
def test_it_is_loaded_as_it_was(options, tmp_path):
    net = moved(make(**options))
    net.save_pretrained(tmp_path / "generator")
    loaded = hypergen.load(tmp_path / "generator")
    inputs = {} if "encoder" in options else {"text": TEXTS}
    expected = net.generate(**inputs, n=2, seed=3).flat()
    assert torch.equal(loaded.generate(**inputs, n=2, seed=3).flat(), expected)
    loaded.prepare(SimpleNamespace())  # it needs no data any more
    state = net.state_dict()
    del state["whitening.std"]
    fresh = Generator.from_dict(net.to_dict())
    with pytest.raises(RunError, match=r"lacks the tensor 'whitening\.std'"):
        fresh.load_tensors(state)


def test_what_was_chosen_for_sampling_is_saved(tmp_path):
    net = moved(make(process={"name": "Diffusion", "steps": 4}))
    net.process.choose("ddim", 2)
    net.save_pretrained(tmp_path / "g")
    loaded = Generator.from_pretrained(tmp_path / "g")
    assert (loaded.process.sampler, loaded.process.steps) == ("ddim", 2)
    assert torch.equal(loaded.generate(TEXTS).flat(), net.generate(TEXTS).flat())


def test_the_memoriser_returns_training_checkpoints(tmp_path):
    net = make(process={"name": "FlowMatching", "steps": 30})
    copies = net.memoriser(ROWS[:6])
    flat = copies.generate(n=20).flat()
    assert float(torch.cdist(flat, ROWS[:6]).min(1).values.max()) < 0.05
    copies.save_pretrained(tmp_path / "generator")
    again = hypergen.load(tmp_path / "generator").generate(n=20).flat()
    assert torch.equal(again, flat)


def test_what_does_not_fit_says_so():
    with pytest.raises(SpecError, match="learns from stored weights, and SimpleNamespace has none"):
        make(data=SimpleNamespace())
    with pytest.raises(SpecError, match="guidance needs a condition"):
        make(NoCondition(), guidance=2.0)
    with pytest.raises(SpecError, match="out of range"):
        make(condition_dropout=1.0)
    with pytest.raises(SpecError, match="entry, global or none"):
        make(whiten="row")
    with pytest.raises(WeightsError, match="not fitted"):
        make(data=None, codec={"name": "PCACodec"}).generate("no")
    with pytest.raises(SpecError, match="needs a generator that samples"):
        Denoising()(SPEC.from_flat(ROWS), {"weights": ROWS})
