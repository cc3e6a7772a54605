"""SANE's autoencoder of weight tokens."""

from __future__ import annotations

import matrix
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hypergen.errors import SpecError, WeightsError
from hypergen.generators.diffusion import WeightCodec
from hypergen.generators.diffusion.sequence_codec import SequenceCodec
from hypergen.generators.diffusion.token_autoencoder import TokenAutoencoder
from hypergen.specs import TokenLayout

SPEC, OTHER = matrix.spec("full_mlp"), matrix.spec("full_conv")
SMALL = {"size": 8, "latent": 6, "dim": 16, "depth": 1, "heads": 2}
KINDS = [{}, {"window": 10, "halo": 2}, {"kl_weight": 0.01}, {"contrast": 0.1, "by": "slot"}]


def checkpoints(count: int = 32, seed: int = 0, spec=SPEC) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return spec.per_entry("scale") * torch.randn(count, spec.numel, generator=draw)


def made(seed: int = 0, **options) -> SequenceCodec:
    torch.manual_seed(seed)
    codec = SequenceCodec(SPEC, **{**SMALL, **options})
    codec.fit(checkpoints())
    return codec


def trained(codec: SequenceCodec, steps: int = 3, lr: float = 1e-2) -> SequenceCodec:
    """Attention starts at zero; after a few steps it does something."""
    optimizer = torch.optim.Adam(codec.parameters(), lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        codec.loss(checkpoints()).backward()
        optimizer.step()
    optimizer.zero_grad()
    return codec


@pytest.mark.parametrize("options", KINDS)
def test_shapes_and_gradients(options):
    codec, flat = trained(made(**options)), checkpoints(3, seed=1)
    latents = codec.encode(flat)
    assert latents.shape == (3, codec.tokens, 6)
    assert codec.tokens == len(TokenLayout(SPEC, 8, options.get("by", "channel")))
    assert torch.equal(codec.positions, codec.layout.positions)
    assert codec.describe(codec.tokens - 1).endswith(f"of slot {SPEC.names[-1]!r}")
    assert codec.decode(latents).shape == flat.shape
    codec.loss(flat).backward()
    for name, parameter in codec.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.abs().any()), name


@pytest.mark.parametrize("options", KINDS)
def test_attention_mixes_tokens_and_never_networks(options):
    """SANE's default transformer takes the batch for the sequence."""
    codec, flat = trained(made(**options)), checkpoints(4, seed=1)
    first, last = SPEC.slots[0], SPEC.slots[-1]
    with torch.no_grad():
        latents = codec.encode(flat)
        other = flat.clone()
        other[1:] = checkpoints(3, seed=2)
        assert torch.allclose(codec.encode(other)[0], latents[0], rtol=1e-5, atol=1e-5)
        assert torch.allclose(codec.encode(flat[:1]), latents[:1], rtol=1e-5, atol=1e-5)
        alone = codec.decode(latents[:1])
        assert torch.allclose(codec.decode(latents)[:1], alone, rtol=1e-5, atol=1e-5)
        # A change of the first token reaches its neighbours: all, or those in its window.
        other = flat.clone()
        other[:, : first.shape[-1]] += 1
        moved = (codec.encode(other) - latents).abs().amax((0, 2)) > 0
        reach = codec.tokens if codec.window is None else 6  # what the first window computes
        assert bool(moved[:reach].all())
        latents[:, 0] += 1
        moved = (codec.decode(latents) - alone[:1]).abs()[:1, -last.numel :] > 0
        if codec.window is None:
            assert bool(moved.all())


@pytest.mark.parametrize("options", KINDS)
def test_training_mode_changes_no_byte_of_what_is_coded(options):
    codec, flat = trained(made(**options)), checkpoints(2, seed=1)
    with torch.no_grad():
        latents = codec.eval().encode(flat)
        out = codec.decode(latents)
        assert torch.equal(codec.train().encode(flat), latents)
        assert torch.equal(codec.decode(latents), out)


@pytest.mark.parametrize("options", KINDS)
def test_padding_of_tokens_and_inside_of_tokens_changes_nothing(options):
    codec, flat = trained(made(**options)), checkpoints(2, seed=1)
    tokens = codec.layout.encode(codec.normal.encode(flat))
    mask = codec.layout.mask.expand(2, -1, -1)
    positions = codec.positions.expand(2, -1, -1)
    with torch.no_grad():
        latents = codec.encode_tokens(tokens, mask, positions)
        rebuilt = codec.decode_tokens(latents, mask, positions)
        for extra in (1, 9, 40):
            pad = (0, 0, 0, extra)
            filled = torch.nn.functional.pad(tokens, pad, value=7.0)
            filled[:, : len(codec.layout)][~mask] = -3.0
            wide = torch.nn.functional.pad(mask, pad)
            places = torch.nn.functional.pad(positions, pad, value=5)
            out = codec.encode_tokens(filled, wide, places)
            assert torch.allclose(out[:, :-extra], latents, rtol=1e-5, atol=1e-5)
            assert not bool(out[:, -extra:].any())
            back = codec.decode_tokens(out, wide, places)
            assert torch.allclose(back[:, :-extra], rebuilt, rtol=1e-5, atol=1e-5)
            assert not bool(back[~wide].any())


def test_two_architectures_share_a_batch():
    codec = trained(made(window=12, halo=3))
    layouts = [TokenLayout(spec, 8, "channel") for spec in (SPEC, OTHER)]
    rows = [
        layout.encode(checkpoints(1, spec=spec))
        for layout, spec in zip(layouts, (SPEC, OTHER), strict=True)
    ]
    longest = max(map(len, layouts))

    def join(parts: list[torch.Tensor]) -> torch.Tensor:
        pads = [(0, 0, 0, longest - p.shape[-2]) for p in parts]
        return torch.stack(
            [torch.nn.functional.pad(p, pad) for p, pad in zip(parts, pads, strict=True)]
        )

    tokens = join([row[0] for row in rows])
    mask = join([layout.mask for layout in layouts])
    positions = join([layout.positions for layout in layouts])
    with torch.no_grad():
        together = codec.encode_tokens(tokens, mask, positions)
        back = codec.decode_tokens(together, mask, positions)
        for i, layout in enumerate(layouts):
            one = codec.encode_tokens(rows[i], layout.mask[None], layout.positions)
            assert torch.allclose(together[i, : len(layout)], one[0], rtol=1e-5, atol=1e-5)
            rebuilt = codec.decode_tokens(one, layout.mask[None], layout.positions)
            assert torch.allclose(back[i, : len(layout)], rebuilt[0], rtol=1e-5, atol=1e-5)


@given(length=st.integers(1, 60), window=st.integers(1, 25), halo=st.integers(0, 8))
@settings(max_examples=40, deadline=None)
def test_windows_cover_every_token_once_with_their_halo(length, window, halo):
    if 2 * halo >= window:
        with pytest.raises(SpecError, match="halos"):
            TokenAutoencoder(4, 1, 1, 2, 2, window, halo)
        return
    core = TokenAutoencoder(4, 1, 1, 2, 2, window, halo)

    class Sees(torch.nn.Module):
        """Token → its own number, and the first and last number that it sees."""

        def forward(self, x, mask):
            far = x[..., :1].masked_fill(~mask[..., None], torch.inf).amin(1, keepdim=True)
            near = x[..., :1].masked_fill(~mask[..., None], -torch.inf).amax(1, keepdim=True)
            return torch.cat([x[..., :1], far.expand_as(x[..., :1]), near.expand_as(x[..., :1])], 2)

    x = torch.arange(length, dtype=torch.float)[None, :, None].expand(2, -1, 4)
    out = core._windows([Sees()], x, torch.ones(2, length, dtype=torch.bool))
    number = torch.arange(length)
    assert torch.equal(out[0, :, 0], number.float())
    assert bool((out[0, :, 1] <= (number - halo).clamp(min=0)).all())
    assert bool((out[0, :, 2] >= (number + halo).clamp(max=length - 1)).all())


def test_training_rebuilds_weights_that_it_has_not_seen():
    codec, unseen = made(latent=8, latent_noise=0.02), checkpoints(8, seed=1)

    def error() -> float:
        with torch.no_grad():
            rest = codec.decode(codec.encode(unseen)) - unseen
        return float((rest.square().mean(0) / SPEC.per_entry("scale").square()).mean())

    assert error() > 0.5
    trained(codec, 150)
    assert error() < 0.1


def test_views_are_contrasted_and_both_rebuilt():
    plain = {"input_noise": 0.0, "latent_noise": 0.0, "temperature": 0.5}
    codec, flat = trained(made(contrast=0.25, **plain)), checkpoints(6, seed=1)
    view = checkpoints(6, seed=2)
    from hypergen.generators.diffusion.latents import nt_xent

    with torch.no_grad():
        pooled = [codec.projector(codec.encode(x).mean(1)) for x in (flat, view)]
        both = torch.cat([flat, view])
        rest = codec.normal.encode(codec.decode(codec.encode(both))) - codec.normal.encode(both)
        expected = 0.75 * rest.square().mean() + 0.25 * nt_xent(*pooled, 0.5)
        assert float(codec.loss(flat, view)) == pytest.approx(float(expected), rel=1e-4)
        alike = codec.loss(flat)  # without noise, the two views are one
        assert float(alike) < float(codec.loss(flat, flat.roll(1, 0)))
    # Without a contrastive term, another view is more to rebuild.
    bare = trained(made(**plain))
    with torch.no_grad():
        mean = (bare.loss(flat) + bare.loss(view)) / 2
        assert float(bare.loss(flat, view)) == pytest.approx(float(mean), rel=1e-4)


@pytest.mark.parametrize("options", KINDS)
def test_it_is_rebuilt_from_its_dictionary_and_tensors(options):
    codec, flat = trained(made(**options)), checkpoints(2, seed=1)
    again = WeightCodec.from_dict(SPEC, codec.to_dict())
    again.load_state_dict(codec.state_dict())
    with torch.no_grad():
        assert torch.equal(again.decode(again.encode(flat)), codec.decode(codec.encode(flat)))


def test_the_size_of_a_token_follows_from_the_widest_row():
    assert SequenceCodec(SPEC, dim=8, heads=1, depth=0).options["size"] == 12
    assert SequenceCodec(OTHER, dim=8, heads=1, depth=0).options["size"] == 36


def test_wrong_settings_and_shapes_are_named():
    for options in (
        {"contrast": 1.0},
        {"input_noise": -1.0},
        {"temperature": 0.0},
        {"window": 4, "halo": 2},
        {"dim": 15},
        {"latent": 0},
    ):
        with pytest.raises(SpecError):
            made(**options)
    codec = made()
    with pytest.raises(WeightsError, match="expected"):
        codec.encode(checkpoints()[:, 1:])
    with pytest.raises(WeightsError, match="latents"):
        codec.decode(torch.zeros(1, 2, 6))
    with pytest.raises(WeightsError, match="expected"):
        codec.loss(checkpoints(), checkpoints()[:, 1:])
