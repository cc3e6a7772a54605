"""p-diff's autoencoder of flat weights."""

from __future__ import annotations

import matrix
import pytest
import torch

from hypergen.errors import SpecError, WeightsError
from hypergen.generators.diffusion import WeightCodec
from hypergen.generators.diffusion.conv_codec import ConvCodec

SPEC = matrix.spec("full_mlp")
SMALL = {"latent": 12, "channels": [4, 8], "stride": 2, "kernel": 3}
KINDS = [{}, {"tokens": 5}, {"kl_weight": 0.01}, {"normalize": "slot", "stride": 3, "tokens": 2}]


def checkpoints(count: int = 64, seed: int = 0, rank: int = 4) -> torch.Tensor:
    """Networks around a common one that differ in `rank` directions."""
    draw = torch.Generator().manual_seed(0)
    basis, mean = torch.randn(rank + 1, SPEC.numel, generator=draw).split([rank, 1])
    own = torch.randn(count, rank, generator=torch.Generator().manual_seed(1 + seed))
    return 0.3 * mean + own @ basis


def made(**options) -> ConvCodec:
    torch.manual_seed(0)
    codec = ConvCodec(SPEC, **{**SMALL, **options})
    codec.fit(checkpoints())
    return codec


def trained(codec: WeightCodec, steps: int, lr: float = 1e-2) -> WeightCodec:
    optimizer = torch.optim.Adam(codec.parameters(), lr=lr)
    flat = checkpoints()
    for _ in range(steps):
        optimizer.zero_grad()
        codec.loss(flat).backward()
        optimizer.step()
    return codec


@pytest.mark.parametrize("options", KINDS)
def test_shapes_and_gradients(options):
    codec, flat = made(**options), checkpoints(3, seed=1)
    latents = codec.encode(flat)
    assert latents.shape == (3, codec.tokens, codec.dim) == (3, options.get("tokens", 1), 12)
    assert codec.mask.shape == (codec.tokens, codec.dim)
    assert codec.positions.shape == (codec.tokens, 3)
    assert codec.decode(latents).shape == flat.shape
    trained(codec, 1)  # the residual parts start at zero
    codec.zero_grad()
    codec.loss(flat).backward()
    for name, parameter in codec.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.abs().any()), name


@pytest.mark.parametrize("options", KINDS)
def test_training_mode_changes_no_byte_of_what_is_coded(options):
    """p-diff decodes while its batch norm is in training mode."""
    codec, flat = trained(made(**options), 2), checkpoints(4, seed=1)
    with torch.no_grad():
        codec.eval()
        latents = codec.encode(flat)
        out, before = codec.decode(latents), {k: v.clone() for k, v in codec.state_dict().items()}
        codec.train()
        assert torch.equal(codec.encode(flat), latents)
        assert torch.equal(codec.decode(latents), out)
        assert all(torch.equal(v, before[k]) for k, v in codec.state_dict().items())


@pytest.mark.parametrize("options", KINDS)
def test_networks_of_a_batch_do_not_know_of_each_other(options):
    codec, flat = trained(made(**options), 2), checkpoints(4, seed=1)
    with torch.no_grad():
        latents = codec.encode(flat)
        strange = codec.encode(torch.cat([flat[:1], 100 * flat[1:]]))
        assert torch.allclose(strange[0], latents[0], rtol=1e-5, atol=1e-5)
        alone = codec.decode(latents[:1])
        assert torch.allclose(codec.decode(latents)[0], alone[0], rtol=1e-5, atol=1e-5)


def test_training_rebuilds_networks_that_it_has_not_seen():
    codec, unseen = made(latent_noise=0.02), checkpoints(16, seed=1)

    def error() -> float:
        with torch.no_grad():
            rest = codec.decode(codec.encode(unseen)) - unseen
        return float(rest.square().mean() / unseen.var(0).mean())

    assert error() > 0.5
    trained(codec, 80)
    assert error() < 0.05


def test_noise_comes_from_the_global_generator():
    codec, flat = made(), checkpoints(4)
    losses = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        losses.append(codec.loss(flat).item())
    assert losses[0] == losses[1] != losses[2]
    quiet = made(input_noise=0.0, latent_noise=0.0)
    expected = quiet.normal.encode(quiet.decode(quiet.encode(flat))) - quiet.normal.encode(flat)
    assert quiet.loss(flat).item() == pytest.approx(expected.square().mean().item(), rel=1e-4)


@pytest.mark.parametrize("options", KINDS)
def test_it_is_rebuilt_from_its_dictionary_and_tensors(options):
    codec, flat = trained(made(**options), 1), checkpoints(2, seed=1)
    again = WeightCodec.from_dict(SPEC, codec.to_dict())
    again.load_state_dict(codec.state_dict())
    assert bool(again.fitted)
    with torch.no_grad():
        assert torch.equal(again.decode(again.encode(flat)), codec.decode(codec.encode(flat)))


def test_wrong_settings_and_shapes_are_named():
    for options in ({"tokens": 0}, {"channels": []}, {"kernel": 4}, {"latent_noise": -1.0}):
        with pytest.raises(SpecError):
            made(**options)
    codec = made()
    with pytest.raises(WeightsError, match="expected"):
        codec.encode(checkpoints()[:, 1:])
    with pytest.raises(WeightsError, match="latents"):
        codec.decode(torch.zeros(1, 2, 12))
