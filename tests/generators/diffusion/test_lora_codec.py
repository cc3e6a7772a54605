"""The autoencoder of LoRA updates."""

from __future__ import annotations

import matrix
import pytest
import torch

from hypergen.errors import SpecError, WeightsError
from hypergen.generators import DeltaReconstruction
from hypergen.generators.diffusion import WeightCodec
from hypergen.generators.diffusion.lora_codec import LoRACodec
from hypergen.zoo.canonical import canonicalize_lora

SPECS = ["lora", "lora_rank_pattern", "lora_embedding", "lora_llama"]
SMALL = {"latent": 6, "dim": 16, "depth": 1, "heads": 2}
KINDS = [{}, {"window": 5, "halo": 1}, {"kl_weight": 0.01}, {"factor_weight": 0.0}]


def checkpoints(name: str = "lora", count: int = 24, seed: int = 0) -> torch.Tensor:
    """LoRAs of common directions, each in a gauge of its own."""
    spec = matrix.spec(name)
    common = torch.Generator().manual_seed(0)
    basis = spec.per_entry("scale") * torch.randn(3, spec.numel, generator=common)
    own = torch.randn(count, 2, generator=torch.Generator().manual_seed(1 + seed))
    return regauged(name, basis[0] + 0.3 * own @ basis[1:], seed)


def regauged(name: str, flat: torch.Tensor, seed: int) -> torch.Tensor:
    """The same updates from other factors: (B M⁻¹, M A)."""
    spec, draw = matrix.spec(name), torch.Generator().manual_seed(seed)
    weights = spec.from_flat(flat.double())
    named = weights.named()
    for module in spec.modules:
        a, b = spec.pair_names(module)
        rank = spec.rank(module)
        turn = torch.linalg.qr(torch.randn(len(flat), rank, rank, generator=draw).double()).Q
        mix = turn * (0.5 + torch.rand(len(flat), 1, rank, generator=draw).double())
        named[a], named[b] = mix @ named[a], named[b] @ torch.linalg.inv(mix)
    return spec.pack(named).float()


def updates(name: str, flat: torch.Tensor) -> torch.Tensor:
    spec = matrix.spec(name)
    weights = spec.from_flat(flat)
    return torch.cat([spec.delta(weights, m).flatten(1) for m in spec.modules], dim=1)


def made(name: str = "lora", **options) -> LoRACodec:
    torch.manual_seed(0)
    codec = LoRACodec(matrix.spec(name), **{**SMALL, **options})
    codec.fit(checkpoints(name))
    return codec


def trained(codec: LoRACodec, flat: torch.Tensor, steps: int = 3, lr: float = 1e-2) -> LoRACodec:
    optimizer = torch.optim.Adam(codec.parameters(), lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        codec.loss(flat).backward()
        optimizer.step()
    optimizer.zero_grad()
    return codec


@pytest.mark.parametrize("name", SPECS)
def test_shapes_and_gradients(name):
    spec, flat = matrix.spec(name), checkpoints(name, 3)
    codec = trained(made(name), flat)
    latents = codec.encode(flat)
    assert codec.tokens == sum(spec.rank(module) for module in spec.modules)
    assert latents.shape == (3, codec.tokens, 6)
    assert codec.decode(latents).shape == flat.shape
    modules = codec.positions[:, 1].tolist()
    assert modules == sorted(modules)
    assert [modules.count(i) for i in range(len(spec.modules))] == [
        spec.rank(m) for m in spec.modules
    ]
    assert codec.describe(0) == f"component 0 of module {spec.modules[0]!r}"
    codec.loss(flat).backward()
    for key, parameter in codec.named_parameters():
        assert parameter.grad is not None, key
        assert bool(parameter.grad.abs().any()), key


@pytest.mark.parametrize("name", SPECS)
def test_the_factors_of_an_update_do_not_matter(name):
    flat = checkpoints(name, 4)
    codec = trained(made(name), checkpoints(name))
    other = regauged(name, flat, seed=9)
    assert not torch.allclose(other, flat, atol=0.01)
    assert torch.allclose(updates(name, other), updates(name, flat), atol=1e-5)
    with torch.no_grad():
        latents = codec.encode(flat)
        assert torch.allclose(codec.encode(other), latents, atol=2e-3)
        for seed in (0, 1):
            losses = []
            for rows in (flat, other):
                torch.manual_seed(seed)
                losses.append(codec.loss(rows).item())
            assert losses[0] == pytest.approx(losses[1], rel=1e-3)


@pytest.mark.parametrize("name", SPECS)
def test_components_are_the_canonical_factors(name):
    codec, flat = made(name), checkpoints(name, 3)
    rebuilt = codec._weights(codec._normal(flat))
    spec = matrix.spec(name)
    assert torch.allclose(rebuilt.flat(), canonicalize_lora(spec.from_flat(flat)).flat(), atol=1e-5)
    assert torch.allclose(updates(name, rebuilt.flat()), updates(name, flat), atol=1e-4)


def test_training_rebuilds_updates_that_it_has_not_seen():
    unseen = checkpoints(count=12, seed=5)
    codec = made(latent_noise=0.01)
    measure = DeltaReconstruction(codec.spec)

    def error() -> float:
        with torch.no_grad():
            rebuilt = codec.spec.from_flat(codec.decode(codec.encode(unseen)))
            return float(measure(rebuilt, {"weights": unseen}))

    before = error()
    trained(codec, checkpoints(), 150)
    assert error() < 0.1 * before
    assert error() < 0.02


@pytest.mark.parametrize("options", KINDS)
def test_neither_training_mode_nor_neighbours_change_what_is_coded(options):
    codec = trained(made(**options), checkpoints())
    flat = checkpoints(count=3, seed=2)
    with torch.no_grad():
        latents = codec.eval().encode(flat)
        out = codec.decode(latents)
        assert torch.equal(codec.train().encode(flat), latents)
        assert torch.equal(codec.decode(latents), out)
        assert torch.allclose(codec.encode(flat[1:2]), latents[1:2], atol=1e-5)
        assert torch.allclose(codec.decode(latents[1:2]), out[1:2], atol=1e-5)


def test_the_loss_is_that_of_the_updates_and_a_share_of_that_of_the_factors():
    flat = checkpoints(count=5)
    codec = trained(made(input_noise=0.0, latent_noise=0.0, factor_weight=0.25), checkpoints())
    with torch.no_grad():
        rebuilt = codec.spec.from_flat(codec.decode(codec.encode(flat)))
        delta = DeltaReconstruction(codec.spec)(rebuilt, {"weights": flat})
        normal = torch.cat([x.flatten() for x in codec._normal(flat)])
        own = torch.cat([x.flatten() for x in codec._decode(codec.encode(flat))])
        expected = 0.75 * delta + 0.25 * (own - normal).square().mean()
        assert codec.loss(flat).item() == pytest.approx(expected.item(), rel=1e-4)


def test_updates_of_lower_rank_keep_their_rank():
    spec = matrix.spec("lora")
    flat = checkpoints(count=16)
    named = spec.from_flat(flat).named()
    for module in spec.modules:
        a = spec.pair_names(module)[0]
        named[a] = named[a].clone()
        named[a][:, 1:] = named[a][:, :1]  # rank one
    low = spec.pack(named)
    torch.manual_seed(0)
    codec = LoRACodec(spec, **SMALL)
    codec.fit(low)
    trained(codec, low, 10)
    with torch.no_grad():
        rebuilt = spec.from_flat(codec.decode(codec.encode(low)))
    for module in spec.modules:
        singular = torch.linalg.svdvals(spec.delta(rebuilt, module))
        assert float((singular[:, 1] / singular[:, 0]).max()) < 0.01


@pytest.mark.parametrize("options", KINDS)
def test_it_is_rebuilt_from_its_dictionary_and_tensors(options):
    codec, flat = trained(made(**options), checkpoints()), checkpoints(count=2)
    again = WeightCodec.from_dict(codec.spec, codec.to_dict())
    again.load_state_dict(codec.state_dict())
    with torch.no_grad():
        assert torch.equal(again.decode(again.encode(flat)), codec.decode(codec.encode(flat)))


def test_wrong_settings_and_shapes_are_named():
    with pytest.raises(SpecError, match="LoRASpec"):
        LoRACodec(matrix.spec("full_mlp"))
    for options in ({"factor_weight": 1.0}, {"latent_noise": -1.0}, {"window": 2, "halo": 1}):
        with pytest.raises(SpecError):
            made(**options)
    with pytest.raises(WeightsError, match="latents"):
        made().decode(torch.zeros(1, 1, 6))
