"""What holds for every encoder with every decoder: the contract of generators for architectures."""

from __future__ import annotations

import architectures
import pytest
import torch
from architectures import GENERATORS, NAMES, generator, graph
from torch.func import functional_call

import hypergen
from hypergen._utils.errors import ConditionError, RunError
from hypergen.conditions.graph.batch import GraphBatch
from hypergen.generators import GraphHypernetwork, load_generator
from hypergen.generators.graph import parameters_of

every = pytest.mark.parametrize("name", GENERATORS)


@every
def test_all_parameters_of_each_architecture_come_in_their_shapes(name):
    made = generator(name)([graph(n) for n in NAMES])
    for n, weights in zip(NAMES, made, strict=True):
        model = architectures.model(n)
        wanted = {k: tuple(p.shape) for k, p in model.named_parameters()}
        assert {slot.name: slot.shape for slot in weights.spec} == wanted
        assert len(weights) == 1
        assert weights.flat().shape == (1, sum(p.numel() for p in model.parameters()))
        assert bool(torch.isfinite(weights.flat()).all())


@every
def test_a_gradient_reaches_every_parameter_of_the_generator(name):
    hypernetwork = generator(name)
    weights = hypernetwork([graph("resnet"), graph("gpt2")])
    torch.manual_seed(1)
    sum((w.flat() * torch.randn_like(w.flat())).sum() for w in weights).backward()
    for key, parameter in hypernetwork.named_parameters():
        assert parameter.grad is not None, key
        assert bool(torch.isfinite(parameter.grad).all()), key
        assert float(parameter.grad.abs().sum()) > 0, key


@every
def test_what_an_architecture_is_batched_with_does_not_matter(name):
    hypernetwork = generator(name)
    together = hypernetwork([graph(n) for n in NAMES])
    for n, weights in zip(NAMES, together, strict=True):
        alone = hypernetwork(graph(n))[0]
        torch.testing.assert_close(alone.flat(), weights.flat(), rtol=1e-4, atol=1e-5)


@every
def test_with_and_without_a_gradient_the_weights_are_equal(name):
    hypernetwork = generator(name)
    graphs = [graph("vit"), graph("resnet")]
    with_gradient = hypernetwork(graphs)
    with torch.no_grad():
        without = hypernetwork(graphs)
    for a, b in zip(with_gradient, without, strict=True):
        torch.testing.assert_close(a.flat(), b.flat(), rtol=1e-5, atol=1e-6)


@every
def test_under_mixed_precision_weights_keep_the_generators_dtype(name):
    hypernetwork = generator(name)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        weights = hypernetwork([graph("resnet")])[0]
        with torch.no_grad():
            written = hypernetwork([graph("resnet")])[0]
    assert weights.dtype == written.dtype == torch.float32
    exact = hypernetwork([graph("resnet")])[0]
    torch.testing.assert_close(weights.flat(), exact.flat(), rtol=0.1, atol=0.05)
    torch.testing.assert_close(written.flat(), exact.flat(), rtol=0.1, atol=0.05)


@every
def test_a_batch_that_is_built_once_gives_the_same(name):
    hypernetwork = generator(name)
    batch = hypernetwork.batch([graph("mlp"), graph("vit")])
    again = hypernetwork(batch)
    for a, b in zip(hypernetwork([graph("mlp"), graph("vit")]), again, strict=True):
        assert torch.equal(a.flat(), b.flat())


@every
def test_saved_and_loaded_it_generates_the_same_bytes(name, tmp_path):
    hypernetwork = generator(name).eval()
    hypernetwork.provenance = {"license": "mit"}
    hypernetwork.save_pretrained(tmp_path / "run" / "generator")
    loaded = hypergen.load(tmp_path / "run")
    assert isinstance(loaded, GraphHypernetwork)
    assert loaded.provenance == {"license": "mit"}
    assert torch.equal(loaded(graph("vit"))[0].flat(), hypernetwork(graph("vit"))[0].flat())


@every
def test_a_step_of_training_leaves_everything_finite_and_lowers_the_loss(name):
    hypernetwork = generator(name)
    model = architectures.model("mlp").eval()
    x = torch.randn(32, 64, generator=torch.Generator().manual_seed(0))
    y = torch.arange(32) % 10
    optimiser = torch.optim.Adam(hypernetwork.parameters(), lr=3e-3)
    losses = []
    for _ in range(8):
        weights = hypernetwork(graph("mlp"))[0]
        loss = torch.nn.functional.cross_entropy(
            functional_call(model, parameters_of(weights), (x,)), y
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert all(bool(torch.isfinite(p).all()) for p in hypernetwork.parameters())
    assert losses[-1] < losses[0]


@every
def test_embeddings_tell_architectures_apart(name):
    embedded = generator(name).embed([graph(n) for n in NAMES]).detach()
    assert embedded.shape == (len(NAMES), 16)
    assert float(torch.pdist(embedded).min()) > 1e-3


def test_tied_parameters_are_generated_once_and_come_under_every_name():
    weights = generator("ours")(graph("gpt2"))[0]
    named = parameters_of(weights)
    assert named["lm_head.weight"] is named["transformer.wte.weight"]
    assert "lm_head.weight" not in weights.spec.names


def test_parameters_that_are_kept_are_left_out():
    weights = generator("ours")(graph("vit"), keep="classifier.*")[0]
    assert not [n for n in weights.spec.names if n.startswith("classifier")]
    everything = generator("ours")(graph("vit"))[0]
    name = "vit.layernorm.weight"
    torch.testing.assert_close(weights[name], everything[name])
    with pytest.raises(ConditionError, match=r"keep='head\.\*' matches no parameter"):
        generator("ours")(graph("vit"), keep="head.*")


def test_the_seed_changes_the_noise_alone():
    hypernetwork = generator("ours")  # of a rank below the widths
    first, again, other = (hypernetwork(graph("mlp"), seed=s)[0].flat() for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    plain = generator("loga")
    assert torch.equal(plain(graph("mlp"), seed=0)[0].flat(), plain(graph("mlp"), seed=1)[0].flat())


def test_repetitions_of_a_block_get_weights_of_their_own():
    weights = generator("compressed")(graph("gpt2"))[0]
    first, second = (weights[f"transformer.h.{i}.mlp.c_fc.weight"] for i in (0, 1))
    assert float((first - second).detach().abs().mean()) > 0.01


def test_a_condition_beside_the_graph_changes_the_weights():
    torch.manual_seed(0)
    options = {"class": "HashingEncoder", "init_args": {"dim": 16}}
    hypernetwork = GraphHypernetwork(**GENERATORS["ours"], condition=options)
    one, other = (
        hypernetwork(graph("mlp"), condition=[text])[0].flat() for text in ("digits", "letters")
    )
    assert not torch.allclose(one, other)
    both = hypernetwork([graph("mlp")] * 2, condition=["digits", "letters"])
    torch.testing.assert_close(both[1].flat(), other)
    with pytest.raises(ConditionError, match="takes a condition"):
        hypernetwork(graph("mlp"))
    with pytest.raises(ConditionError, match="3 conditions do not fit 1"):
        hypernetwork(graph("mlp"), condition=["a", "b", "c"])
    with pytest.raises(ConditionError, match="takes no condition"):
        generator("ours")(graph("mlp"), condition=["a"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder": {"name": "gate"}}, "no graph encoder 'gate'"),
        ({"encoder": {"name": "gated", "heads": 2}}, "no option 'heads'"),
        ({"encoder": {"dim": 30, "heads": 4}}, "cannot be divided"),
        ({"decoder": {"name": "low-rank"}}, "no graph decoder 'low-rank'"),
        ({"decoder": {"rnak": 2}}, "no option 'rnak'.*rank"),
        ({"decoder": {"normalize": "none"}}, "normalize='none'"),
        ({"decoder": {"noise": -1}}, "noise=-1"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ConditionError, match=message):
        GraphHypernetwork(**options)


def test_a_batch_for_another_encoder_is_refused():
    with pytest.raises(ConditionError, match="compress=True"):
        generator("ours")(GraphBatch.of(graph("mlp"), compress=True))


def test_a_generator_for_architectures_is_refused_where_conditions_are_taken(tmp_path):
    generator("ghn2").save_pretrained(tmp_path)
    with pytest.raises(RunError, match="hypergen init"):
        load_generator(tmp_path)


def test_damaged_files_are_named(tmp_path):
    generator("ghn2").save_pretrained(tmp_path)
    file = tmp_path / "generator.json"
    file.write_text(file.read_text().replace('"gated"', '"gatd"'))
    with pytest.raises(RunError, match=r"generator\.json is damaged: no graph encoder 'gatd'"):
        hypergen.load(tmp_path)
