"""Kernel density estimates over embeddings."""

from __future__ import annotations

from types import SimpleNamespace

import matrix
import pytest
import torch

from hypergen.conditions import HashingEncoder, NoCondition
from hypergen.errors import ConditionError, SpecError, WeightsError
from hypergen.generators import Generator, Reconstruction
from hypergen.generators.diffusion import kernels
from hypergen.generators.diffusion.anchors import Anchors
from hypergen.generators.diffusion.denoising import Denoising
from hypergen.generators.diffusion.density import KDEGenerator
from hypergen.generators.diffusion.kernels import kernel_width
from hypergen.generators.library import Experts
from hypergen.generators.objectives import Mixture, Objective

SPEC = matrix.spec("full_mlp")
TOKENS = {"name": "TokenCodec", "size": 16, "by": "channel"}
SEQUENCE = {"name": "SequenceCodec", "latent": 4, "dim": 8, "depth": 1, "heads": 1}
ENCODER = HashingEncoder(16)
TEXTS = ["even digits", "odd digits", "round ones", "a seven or a nine", "all", "none of them"]


def checkpoints(count: int = 6, seed: int = 0):
    draw = torch.Generator().manual_seed(seed)
    return SPEC.from_flat(2 + torch.randn(count, SPEC.numel, generator=draw))


def apart(a, b):
    """Distances, not by way of inner products, which round."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def made(weights=None, **options) -> KDEGenerator:
    torch.manual_seed(0)
    return KDEGenerator.from_weights(
        checkpoints() if weights is None else weights, **{"codec": TOKENS, **options}
    )


def described(**options) -> KDEGenerator:
    experts = Experts.encode(checkpoints(), TEXTS, ENCODER)
    return made(encoder=ENCODER, conditions=experts.pooled, **options)


# -- what is drawn ---------------------------------------------------------------------------


def test_without_noise_samples_are_the_anchors():
    net = made(bandwidth=0.0)
    out = net.generate(n=60, seed=0).flat()
    stored = checkpoints().flat()
    distance, nearest = apart(out, stored).min(1)
    assert float(distance.max()) < 1e-4
    assert len(nearest.unique()) == 6
    # Tokens, or numbers, of several anchors in one sample.
    for joint in ("token", "entry"):
        latents = made(bandwidth=0.0, joint=joint)
        own = latents.codec.encode(latents.generate(n=40).flat())
        held = latents.codec.encode(stored)
        if joint == "token":
            hit = apart(own.transpose(0, 1), held.transpose(0, 1)).min(2)
            assert float(hit.values.max()) < 1e-3
            assert all(len(token.unique()) > 1 for token in hit.indices.T)
        else:
            gap = (own[:, None] - held[None]).abs().amin(1)
            assert float(gap.max()) < 1e-4
            assert not bool((apart(own.flatten(1), held.flatten(1)) < 0.1).any())


@pytest.mark.parametrize("joint", ["network", "token", "entry"])
def test_every_number_of_every_sample_has_noise_of_its_own(joint):
    """SANE seeds every dimension alike: its samples are one anchor and one random number."""
    net = made(checkpoints(3), bandwidth=0.3, joint=joint)
    net.collect()
    exact = made(checkpoints(3), bandwidth=0.0, joint=joint)
    rest = (
        net.codec.encode(net.generate(n=80).flat())
        - exact.codec.encode(exact.generate(n=80).flat())
    ).flatten(1)
    real = net.codec.mask.flatten()
    noise = rest[:, real] / net.spread.flatten()[real]
    assert torch.linalg.matrix_rank(noise) == min(noise.shape)
    assert float(noise.std()) == pytest.approx(0.3, rel=0.05)
    assert float(noise.std(1).min()) > 0.2  # not one number for all dimensions
    correlation = torch.corrcoef(noise.T) - torch.eye(noise.shape[1])
    assert float(correlation.abs().max()) < 0.6
    assert float(correlation.abs().mean()) < 0.12
    assert not bool(rest[:, ~real].any())


def test_the_spread_of_samples_is_that_of_the_estimate():
    """Variance of a kernel density estimate: that of the anchors, and that of the kernel."""
    net = made(checkpoints(400, seed=3), bandwidth=0.5, most=200)
    out = net.codec.encode(net.generate(n=3000).flat()).flatten(1)
    mask = net.codec.mask.flatten()
    variance = out.var(0)[mask] / net.embeddings.flatten(1).var(0)[mask]
    assert float(variance.mean()) == pytest.approx(1.25, rel=0.03)


def test_rules_of_bandwidth_are_those_of_scipy():
    scipy = pytest.importorskip("scipy.stats")
    for rule in ("scott", "silverman"):
        reference = scipy.gaussian_kde(torch.randn(3, 50).numpy(), bw_method=rule)
        assert kernel_width(rule, 50, 3) == pytest.approx(reference.factor)
    assert kernel_width(0.3, 50, 3) == 0.3


@pytest.mark.parametrize("joint", ["network", "token", "entry"])
def test_a_rule_counts_what_is_drawn_jointly(joint):
    rule, exact = (made(checkpoints(50), bandwidth=b, joint=joint) for b in ("scott", 1.0))
    centre = made(checkpoints(50), bandwidth=0.0, joint=joint).generate(n=3).flat()
    ratio = (rule.generate(n=3).flat() - centre).norm() / (
        exact.generate(n=3).flat() - centre
    ).norm()
    codec = rule.codec
    dimensions = {"network": codec.tokens * codec.dim, "token": codec.dim, "entry": 1}[joint]
    assert float(ratio) == pytest.approx(kernel_width("scott", 50, dimensions), rel=1e-3)


def test_rows_depend_on_their_own_seed_alone():
    net = described(nearest=2, bandwidth=0.2, joint="token")
    both = net.generate(["odd", "round"], n=3, seed=5).flat()
    assert torch.equal(net.generate(["odd", "round"], n=3, seed=5).flat(), both)
    assert torch.allclose(net.generate("round", n=3, seed=5).flat(), both[3:], atol=1e-6)
    assert torch.allclose(net.generate("odd", seed=7).flat(), both[2:3], atol=1e-6)
    assert not torch.allclose(both[0], both[1])


# -- which anchors ---------------------------------------------------------------------------


def test_the_nearest_conditions_choose_the_anchors():
    net = described(nearest=1, bandwidth=0.0)
    stored = checkpoints().flat()
    out = net.generate(TEXTS, n=4).flat().unflatten(0, (6, 4))
    assert torch.allclose(out, stored[:, None].expand_as(out), atol=1e-4)
    two = described(nearest=2, bandwidth=0.0, temperature=10.0)
    weights = two.anchor_weights(two.encode(text="odd digits"))
    assert int((weights > 0).sum()) == 2
    assert int(weights.argmax()) == 1
    assert float(weights.sum()) == pytest.approx(1)
    seen = apart(two.generate("odd digits", n=50).flat(), stored).argmin(1).unique()
    assert seen.tolist() == sorted((weights[0] > 0).nonzero().flatten().tolist())


def test_the_best_by_a_metric_are_anchors():
    scores = torch.tensor([0.1, 0.9, float("nan"), 0.8, 0.5, 0.2])
    options = {"metric": "val.accuracy", "scores": scores, "bandwidth": 0.0}
    net = made(best=0.34, **options)
    assert net.config["anchors"] == 2
    net.collect()
    kept = net.codec.encode(checkpoints().flat()[[1, 3]])
    assert torch.allclose(net.embeddings, kept)
    low = made(best=0.5, order="low", **options)
    low.collect()
    assert torch.allclose(low.embeddings, low.codec.encode(checkpoints().flat()[[0, 4, 5]]))
    # The codec is fitted to all of them: it is not what the choice is about.
    assert torch.equal(net.codec.mean, made().codec.mean)
    with pytest.raises(WeightsError, match="scores"):
        made(best=0.5, metric="val.accuracy")
    chosen = Anchors(lambda: torch.zeros(0)).choose(10, 1.0, "high", 4)
    assert chosen.tolist() == [0, 3, 6, 9]


# -- training and files ----------------------------------------------------------------------


def data(weights=None, **parts):
    weights = checkpoints() if weights is None else weights
    return SimpleNamespace(training_weights=lambda: weights.flat(), **parts)


def trained(net: KDEGenerator, steps: int = 3) -> KDEGenerator:
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    net.train()
    for _ in range(steps):
        optimizer.zero_grad()
        net.loss({"weights": checkpoints().flat()}, Denoising()).backward()
        optimizer.step()
    return net


def test_embeddings_follow_the_codec_that_was_trained():
    torch.manual_seed(0)
    net = KDEGenerator(SPEC, NoCondition(), SEQUENCE)
    with pytest.raises(WeightsError, match="prepare"):
        net.generate()
    net.prepare(data())
    net.generate()
    before = net.embeddings.clone()
    trained(net)
    assert not bool(net.collected)
    net.generate()
    assert bool(net.collected)
    assert not torch.allclose(net.embeddings, before)
    assert torch.equal(net.embeddings, net.codec.encode(checkpoints().flat()).detach())
    # What is there stays, also when other data is at hand.
    kept = net.embeddings.clone()
    net.prepare(data(checkpoints(9, seed=1)))
    net.generate()
    assert torch.equal(net.embeddings, kept)


def test_embeddings_are_saved_with_the_generator(tmp_path):
    net = trained(described(nearest=2, codec=SEQUENCE))
    net.save_pretrained(tmp_path / "generator")  # collects
    loaded = Generator.from_pretrained(tmp_path / "generator")
    assert isinstance(loaded, KDEGenerator)
    assert torch.equal(loaded.embeddings, net.embeddings)
    a, b = (g.generate("odd", n=2, seed=3).flat() for g in (net, loaded))
    assert torch.equal(a, b)
    # A fresh one makes room for them.
    fresh = KDEGenerator(SPEC, ENCODER, **{**net.config, "anchors": 0})
    fresh.load_tensors(net.state_dict())
    assert torch.equal(fresh.eval().generate("odd", n=2, seed=3).flat(), a)


def test_objectives():
    net = trained(made(codec=SEQUENCE))
    batch = {"weights": checkpoints().flat()}
    net.eval()
    loss = net.loss(batch, Denoising()).item()
    assert net.loss(batch, Denoising()).item() == loss
    zoo = Reconstruction(torch.zeros(SPEC.numel), torch.ones(SPEC.numel))
    assert net.loss(batch, zoo).item() == loss

    class Size(Objective):
        def forward(self, weights, batch):
            return weights.flat().square().mean()

    rebuilt = net.codec.decode(net.codec.encode(batch["weights"]))
    size = net.loss(batch, Size()).item()
    assert size == pytest.approx(rebuilt.square().mean().item(), rel=1e-5)
    both = net.loss(batch, Mixture([Denoising(), Size()], [1.0, 2.0])).item()
    assert both == pytest.approx(loss + 2 * size, rel=1e-5)
    with pytest.raises(SpecError, match="nothing to train"):
        made().loss(batch, Denoising())


def test_data_modules_bring_metrics_and_conditions():
    rows = [SimpleNamespace(metrics={"val": {"accuracy": a}}) for a in (3, 1, 2, 6, 5, 4)]
    experts = Experts.encode(checkpoints(), [[t, f"{t}!"] for t in TEXTS], ENCODER)
    full = data(splits={"train": SimpleNamespace(rows=rows)}, experts=lambda: experts)
    net = KDEGenerator(
        SPEC, ENCODER, TOKENS, metric="val.accuracy", best=0.5, nearest=1, bandwidth=0.0
    )
    net.prepare(full)
    stored = checkpoints().flat()
    out = net.generate([TEXTS[4], TEXTS[3]]).flat()
    assert torch.allclose(out, stored[[4, 3]], atol=1e-4)
    assert net.config["anchors"] == 3
    rows = [SimpleNamespace(metrics={"test": {"accuracy": a}}) for a in range(6)]
    leak = data(splits={"train": SimpleNamespace(rows=rows)})
    with pytest.warns(UserWarning, match="look better on the test samples"):
        KDEGenerator(SPEC, NoCondition(), TOKENS, metric="test.accuracy").prepare(leak)
    options = {"codec": TOKENS, "metric": "val.acuracy", "best": 0.5}
    with pytest.raises(SpecError, match=r"val\.accuracy"):
        KDEGenerator(SPEC, NoCondition(), **options).prepare(full)
    with pytest.raises(SpecError, match="metrics"):
        KDEGenerator(SPEC, NoCondition(), **options).prepare(data())
    with pytest.raises(ConditionError, match="conditions"):
        KDEGenerator(SPEC, ENCODER, TOKENS, nearest=1).prepare(data())
    with pytest.raises(SpecError, match="stored weights"):
        KDEGenerator(SPEC, NoCondition(), TOKENS).prepare(SimpleNamespace())


# -- candidates ------------------------------------------------------------------------------


def test_more_rounds_of_candidates_come_closer_to_what_is_scored():
    net = made(checkpoints(30), bandwidth=0.4, joint="entry")
    wanted = checkpoints(1, seed=9).flat()[0]

    def score(weights):
        return -(weights.flat() - wanted).square().mean(1)

    one = net.refine(score, n=3, draws=40)
    four = net.refine(score, n=3, draws=40, rounds=4, keep=8)
    plain = score(net.generate(n=40))
    assert torch.allclose(score(one), one.expected_gain, atol=1e-5)
    assert one.expected_gain.tolist() == sorted(one.expected_gain.tolist(), reverse=True)
    assert float(one.expected_gain[0]) == pytest.approx(float(plain.max()), rel=1e-5)
    assert float(four.expected_gain[2]) > float(one.expected_gain[0])
    assert torch.equal(net.refine(score, n=3, draws=40, rounds=4, keep=8).flat(), four.flat())
    text = described(nearest=1, bandwidth=0.0)
    best = text.refine(score, condition=text.encode(text="round ones"), draws=3)
    assert torch.allclose(best.flat()[0], checkpoints().flat()[2], atol=1e-4)
    with pytest.raises(ConditionError, match="one condition"):
        text.refine(score, condition=text.encode(text=TEXTS))
    with pytest.raises(ConditionError, match="draws"):
        net.refine(score, n=5, draws=3)
    with pytest.raises(ConditionError, match="2 at least for several rounds"):
        net.refine(score, draws=3, rounds=2, keep=1)


def test_candidates_without_a_score_are_the_worst():
    net = made(checkpoints(30), bandwidth=0.4)

    def score(weights):
        return (
            torch.arange(len(weights))
            .float()
            .masked_fill(torch.arange(len(weights)) % 2 > 0, torch.nan)
        )

    best = net.refine(score, n=2, draws=8)
    assert best.expected_gain.tolist() == [6.0, 4.0]
    assert torch.allclose(best.flat()[0], net.generate(n=8).flat()[6], atol=1e-5)


def test_later_rounds_draw_around_all_that_were_kept():
    net, widths = described(nearest=1, bandwidth="scott"), []
    condition, draw = net.encode(text=TEXTS[0]), net._draw

    def watched(anchors, spread, probability, seeds):
        latents = draw(anchors, spread, probability, seeds)
        centres, noise, _ = kernels.draw(anchors, probability, seeds, net.joint)
        width = (latents - centres) / (spread * noise).where(spread > 1e-3, torch.nan)
        widths.append(float(width.nanmedian()))
        return latents

    net._draw = watched
    net.refine(
        lambda weights: weights.flat().sum(1), condition=condition, draws=8, rounds=2, keep=4
    )
    size = net.codec.tokens * net.codec.dim
    assert widths[0] == pytest.approx(1.0, rel=1e-3)
    assert widths[1] == pytest.approx(kernel_width("scott", 4, size), rel=1e-3)


@pytest.mark.parametrize(
    "options",
    [
        {"bandwidth": -1.0},
        {"bandwidth": "scot"},
        {"joint": "layer"},
        {"best": 0.0},
        {"best": 0.5},
        {"order": "up"},
        {"most": 0},
        {"temperature": 0.0},
    ],
)
def test_wrong_settings_are_named(options):
    with pytest.raises(SpecError):
        KDEGenerator(SPEC, NoCondition(), TOKENS, **options)


def test_conditions_must_be_there_and_frozen():
    with pytest.raises(ConditionError, match="there is none"):
        KDEGenerator(SPEC, NoCondition(), TOKENS, nearest=2)

    class Trained(HashingEncoder):
        def __init__(self):
            super().__init__(16)
            self.extra = torch.nn.Parameter(torch.zeros(1))

    with pytest.raises(ConditionError, match="freeze"):
        KDEGenerator(SPEC, Trained(), TOKENS, nearest=2)
