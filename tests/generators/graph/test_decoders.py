"""Sizes of generated weights, and what tells the rows of wide layers apart."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from hypergen.conditions.graph import trace
from hypergen.conditions.graph.batch import GraphBatch
from hypergen.generators.graph import GraphHypernetwork, init_
from hypergen.generators.graph.noise import orthogonal_noise
from hypergen.generators.graph.plan import make_plan
from hypergen.generators.graph.rules import architecture


def hypernetwork(**decoder: object) -> GraphHypernetwork:
    torch.manual_seed(0)
    return GraphHypernetwork({"dim": 32, "heads": 4}, decoder)


def generated(model: nn.Module, example: tuple[int, ...], **decoder: object) -> dict[str, Tensor]:
    with torch.no_grad():
        weights = hypernetwork(**decoder)(trace(model, example))[0]
    return {name: tensor[0] for name, tensor in weights.named().items()}


@pytest.mark.parametrize("name", ["low_rank", "tiling"])
@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_standard_brings_each_tensor_to_the_size_of_a_start(name, noise):
    model = nn.Sequential(
        nn.Conv2d(3, 48, 3), nn.BatchNorm2d(48), nn.ReLU(), nn.Conv2d(48, 64, 5), nn.Flatten(),
        nn.Linear(64 * 4, 128),
    )  # fmt: skip
    found = generated(model, (2, 3, 8, 8), name=name, normalize="standard", noise=noise, **(
        {"tile": 16} if name == "tiling" else {"rank": 16}
    ))  # fmt: skip
    for key, wanted in {
        "0.weight": (2 / 27) ** 0.5,  # through a norm into a rectifier
        "3.weight": (1 / (48 * 25)) ** 0.5,
        "5.weight": (1 / 256) ** 0.5,
    }.items():
        size = float(found[key].square().mean().sqrt())
        assert size == pytest.approx(wanted, rel=0.15 if noise or name == "tiling" else 1e-3), key
    assert float((found["1.weight"] - 1).abs().max()) < 0.3
    assert float(found["0.bias"].abs().max()) < 0.2


def test_fan_in_is_about_that_size():
    found = generated(nn.Sequential(nn.Linear(64, 64), nn.ReLU()), (2, 64), name="tiling")
    assert float(found["0.weight"].std()) == pytest.approx((2 / 64) ** 0.5, rel=0.3)


def test_rows_of_wide_layers_are_copies_with_tiles_and_differ_without():
    model = nn.Linear(40, 64)
    tiled = generated(model, (2, 40), name="tiling", tile=16)["weight"]
    assert torch.equal(tiled[:16], tiled[16:32])
    assert torch.equal(tiled[:, :16], tiled[:, 16:32])
    assert torch.equal(tiled[:, 32:], tiled[:, :8])
    for options in ({"name": "low_rank", "rank": 16, "noise": 0.0}, {"name": "low_rank"},
                    {"name": "tiling", "tile": 16, "noise": 1.0}):  # fmt: skip
        weight = generated(model, (2, 40), **options)["weight"]
        near = torch.nn.functional.cosine_similarity(weight[:, None], weight[None], dim=-1)
        assert float((near - torch.eye(64)).max()) < 0.999, options


def test_low_rank_without_noise_has_that_rank_and_noise_fills_the_rest():
    model = nn.Linear(48, 48)
    low = torch.linalg.svdvals(generated(model, (2, 48), rank=8, noise=0.0)["weight"])
    assert float(low[8:].max()) < 1e-5 * float(low[0])
    full = torch.linalg.svdvals(generated(model, (2, 48), rank=8)["weight"])
    assert float(full[-1]) > 0.02 * float(full[0])


def test_a_narrow_layer_is_the_corner_of_a_wide_one_before_its_scale():
    # Codes of rows and columns do not depend on how many there are: nothing is tied to a width.
    decoder = hypernetwork(rank=8, noise=0.0).matrices
    assert torch.allclose(decoder.left.first(10), decoder.left.first(300)[:10])
    assert torch.allclose(decoder.right.first(10), decoder.right.first(300)[:10])
    codes = decoder.left.first(5000).detach()
    near = torch.nn.functional.normalize(codes, dim=1)
    assert float((near[:50] @ near[50:].T).max()) < 0.9999
    # Within the rank they are orthogonal: every matrix of that size can be reached, as by a tile.
    torch.testing.assert_close(codes[:8] @ codes[:8].T, 8 * torch.eye(8))


def test_codes_are_cosines_of_the_exact_angle_whatever_the_dtype():
    from hypergen.generators.graph.codes import PositionCodes

    codes = PositionCodes(4, "rows")
    positions = torch.tensor([[3], [1_000_003]])
    turn = 2.0**64
    features = torch.tensor(
        [
            [
                math.cos(2 * math.pi * (((2 * p * f + 4 * p * p * r + c) % 2**64) / turn)) * 2**0.5
                for f, r, c in zip(
                    codes.frequencies[0].tolist(), codes.rises[0].tolist(), codes.phases.tolist(),
                    strict=True,
                )
            ]
            for p in positions[:, 0].tolist()
        ]
    )  # fmt: skip
    torch.testing.assert_close(codes(positions), features @ codes.project.weight.T)
    low = codes.to(torch.bfloat16)(positions).float()
    torch.testing.assert_close(low, features @ codes.project.weight.T.float(), atol=0.1, rtol=0)


def test_few_rows_are_made_from_the_left_as_many_are_from_the_right():
    decoder = hypernetwork(rank=16, noise=0.0).matrices
    few = trace(nn.Conv2d(5, 8, 3), (2, 5, 6, 6))  # 8 rows, below the rank
    x = torch.randn(1, 32, generator=torch.Generator().manual_seed(0))
    plan = make_plan(GraphBatch.of(few), [architecture(few, keep="bias")])
    (group,), (core,) = plan.matrices, decoder.cores(x, plan.matrices)
    core = core.unflatten(-1, (16, 16)) / 16
    wanted = decoder.left.first(8) @ core @ decoder.right.first(5).T  # [1, K, o, c]
    wanted = wanted.permute(0, 2, 3, 1).flatten(2)
    wanted = wanted / wanted.square().mean().sqrt() * (1 / 45) ** 0.5
    (made,) = decoder.prepare(x, [group])
    torch.testing.assert_close(decoder.emit(made, group, slice(None), 0), wanted)
    torch.testing.assert_close(made.size, torch.tensor([(1 / 45) ** 0.5]))


def test_noise_is_for_what_the_rank_does_not_reach():
    model = nn.Sequential(nn.Linear(24, 24), nn.Linear(24, 48))
    decoder = hypernetwork(rank=24)
    with torch.no_grad():
        first, other = (decoder(trace(model, (2, 24)), seed=s)[0].flat() for s in (0, 1))
    assert torch.equal(first, other)
    wide = nn.Linear(48, 48)
    with torch.no_grad():
        first, other = (decoder(trace(wide, (2, 48)), seed=s)[0].flat() for s in (0, 1))
    assert not torch.allclose(first, other)


def test_kernels_of_all_sizes_share_what_stands_around_their_centre():
    from hypergen.generators.graph.codes import kernel_offsets

    small, large = (
        kernel_offsets((3, 3), torch.device("cpu")),
        kernel_offsets((5, 5), torch.device("cpu")),
    )
    assert set(map(tuple, small.tolist())) < set(map(tuple, large.tolist()))
    line = kernel_offsets((3,), torch.device("cpu"))
    assert line.tolist() == [[0, 0, -1], [0, 0, 0], [0, 0, 1]]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(0, 5))
def test_noise_has_orthogonal_rows_and_depends_on_its_key_alone(rows, columns, seed):
    both = orthogonal_noise(rows, columns, ["a", "b"], seed)
    assert torch.equal(orthogonal_noise(rows, columns, ["b"], seed)[0], both[1])
    count = min(rows, columns)
    product = both[0, :count] @ both[0, :count].T / columns
    torch.testing.assert_close(product, torch.eye(count), atol=1e-4, rtol=0)
    if columns > 8:  # the fewer columns, the fewer orders of few rows
        assert not torch.equal(both[0], both[1])
    view = torch.full((1, rows, columns), float("nan"))
    assert torch.equal(orthogonal_noise(rows, columns, ["a"], seed, view), both[:1])


@pytest.mark.parametrize(("rows", "columns"), [(40, 2100), (500, 2100), (3000, 700)])
def test_noise_of_wide_matrices_is_orthogonal_by_bands_and_repeats_no_row(rows, columns):
    noise = orthogonal_noise(rows, columns, ["a"])[0]
    assert float(noise.square().mean()) == pytest.approx(1.0, abs=1e-3)
    near = noise @ noise.T / columns - torch.eye(rows)
    assert float(near[:500, :500].abs().max()) < 1e-5
    assert float(near.abs().max()) < 0.5


def _mlp() -> tuple[nn.Module, Tensor]:
    layers: list[nn.Module] = [nn.Linear(64, 192), nn.ReLU()]
    for _ in range(5):
        layers += [nn.Linear(192, 192), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(192, 10)), torch.randn(64, 64)


def _resnet() -> tuple[nn.Module, Tensor]:
    import transformers as t

    config = t.ResNetConfig(
        embedding_size=16, hidden_sizes=[32, 64], depths=[2, 2], layer_type="basic"
    )
    return t.ResNetForImageClassification(config), torch.randn(8, 3, 32, 32)


def _vit() -> tuple[nn.Module, Tensor]:
    import transformers as t

    config = t.ViTConfig(
        image_size=16, patch_size=4, hidden_size=128, intermediate_size=256, num_hidden_layers=4,
        num_attention_heads=4,
    )  # fmt: skip
    return t.ViTForImageClassification(config), torch.randn(8, 3, 16, 16)


def _gpt() -> tuple[nn.Module, Tensor]:
    import transformers as t

    config = t.GPT2Config(
        vocab_size=128, n_positions=32, n_embd=128, n_layer=4, n_head=4, bos_token_id=0,
        eos_token_id=0,
    )  # fmt: skip
    return t.GPT2LMHeadModel(config), torch.randint(0, 128, (4, 32))


@pytest.mark.parametrize("make", [_mlp, _resnet, _vit, _gpt])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_fresh_generator_is_a_start_of_the_right_size(make, seed):
    """Outputs have a variance of about 1, in networks wider than the rank, with and without norms;
    a network of He's initialisation has 0.5 to 2."""
    torch.manual_seed(seed)
    model, x = make()
    torch.manual_seed(seed)
    init_(model, GraphHypernetwork({"dim": 32, "heads": 4}, {"rank": 16}))
    model.train("ResNet" in type(model).__name__)
    with torch.no_grad():
        out = model(x)
    logits = out.logits if hasattr(out, "logits") else out
    assert 0.2 < float(logits.std()) < 3.0
