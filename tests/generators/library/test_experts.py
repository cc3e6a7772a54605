"""The library: filling, comparing, merging, leaving out."""

from __future__ import annotations

import matrix
import pytest
import torch

from hypergen.conditions import HashingEncoder, TaskEncoder
from hypergen.errors import ConditionError, RunError, SpecError, WeightsError
from hypergen.generators import Generator, NearestExpert, WeightedExperts
from hypergen.generators.library import ExpertLibrary, Experts
from hypergen.generators.library.experts import top_softmax

SPEC = matrix.spec("lora")
ENCODER = HashingEncoder(16)
TEXTS = [["even digits", "divisible by two"], ["odd digits"], ["round ones", "a circle", "holes"]]


def weights(count: int = 3, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    return SPEC.from_flat(torch.randn(count, SPEC.numel, generator=generator))


def library(experts: Experts) -> ExpertLibrary:
    made = ExpertLibrary(SPEC, 16)
    made.fill(experts)
    return made


def test_descriptions_are_encoded_for_their_experts():
    experts = Experts.encode(weights(), TEXTS, ENCODER)
    assert experts.owner.tolist() == [0, 0, 1, 2, 2, 2]
    assert list(experts.names) == ["even digits", "odd digits", "round ones"]
    assert torch.equal(experts.pooled[2], ENCODER(["odd digits"]).pooled[0])
    single = Experts.encode(weights(), ["a", "b", "c"], ENCODER, chunk=2)
    assert single.owner.tolist() == [0, 1, 2]
    assert torch.equal(single.pooled, ENCODER(["a", "b", "c"]).pooled)


def test_similarity_is_that_of_the_best_description():
    made = library(Experts.encode(weights(), TEXTS, ENCODER))
    similarity = made.similarity(ENCODER(["a circle", "odd digits"]).pooled)
    assert similarity.shape == (2, 3)
    assert float(similarity[0, 2]) == pytest.approx(1, abs=1e-6)
    assert float(similarity[1, 1]) == pytest.approx(1, abs=1e-6)
    rows = torch.nn.functional.normalize(ENCODER(TEXTS[0]).pooled, dim=-1)
    one = torch.nn.functional.normalize(ENCODER(["a circle"]).pooled, dim=-1)
    assert float(similarity[0, 0]) == pytest.approx(float((rows @ one.T).max()), abs=1e-6)


def test_centres_are_means():
    made = library(Experts.encode(weights(), TEXTS, ENCODER))
    assert torch.allclose(made.centres()[2], ENCODER(TEXTS[2]).pooled.mean(0), atol=1e-6)
    assert torch.allclose(made.centres()[1], ENCODER(TEXTS[1]).pooled[0])


def test_equal_networks_become_one_expert_in_the_order_of_the_first():
    three = weights()
    experts = Experts.encode(three[[2, 0, 2, 1, 0]], ["a", "b", "c", "d", "e"], ENCODER).merged()
    assert torch.equal(experts.weights.flat(), three.flat()[[2, 0, 1]])
    assert experts.owner.tolist() == [0, 1, 0, 2, 1]
    assert list(experts.names) == ["a", "b", "d"]


def test_experts_of_a_rows_own_task_are_known():
    found = Experts.encode(weights(), TEXTS, ENCODER)
    tasks = torch.tensor([4, 7, 5, 6, 6, 6])  # expert 0 was trained for tasks 4 and 7
    made = library(Experts(found.weights, found.pooled, found.owner, tasks, found.names))
    own = made.own(torch.tensor([7, 5, 99, -1, 6]))
    assert own.int().tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 0], [0, 0, 1]]
    lone = Experts.encode(weights(1), ["a"], ENCODER)
    made = library(Experts(lone.weights, lone.pooled, lone.owner, torch.tensor([3]), lone.names))
    assert made.own(torch.tensor([3])).int().tolist() == [[0]]  # no other is left


def test_top_softmax_keeps_the_largest():
    logits = torch.tensor([[1.0, 3.0, 2.0, -torch.inf]])
    assert torch.equal(top_softmax(logits, 1), torch.tensor([[0.0, 1.0, 0.0, 0.0]]))
    two = top_softmax(logits, 2, 0.5)
    assert torch.allclose(two[0, [1, 2]], torch.tensor([6.0, 4.0]).softmax(0))
    assert two[0, [0, 3]].tolist() == [0.0, 0.0]
    for top_k in (None, 4, 9):
        assert torch.allclose(top_softmax(logits, top_k), logits.softmax(-1))


def test_what_does_not_fit_is_refused():
    made = ExpertLibrary(SPEC, 16)
    with pytest.raises(ConditionError, match="from_weights"):
        made.similarity(torch.randn(1, 16))
    with pytest.raises(ConditionError, match="3 experts need as many descriptions"):
        Experts.encode(weights(), TEXTS[:2], ENCODER)
    with pytest.raises(ConditionError, match="'expert 1' has no description"):
        Experts.encode(weights(), [["a"], [], ["b"]], ENCODER)
    with pytest.raises(ConditionError, match="width 8"):
        made.fill(Experts.encode(weights(), TEXTS, HashingEncoder(8)))
    other = matrix.spec("lora_alpha")
    with pytest.raises(WeightsError, match="another spec"):
        made.fill(Experts.encode(other.neutral(3), TEXTS, ENCODER))
    bad = weights()
    bad.flat()[1, 0] = torch.nan
    with pytest.raises(WeightsError, match="NaN"):
        made.fill(Experts.encode(bad, TEXTS, ENCODER))
    with pytest.raises(ConditionError, match="freeze it"):
        NearestExpert(SPEC, TaskEncoder(3, 8))
    for options in ({"top_k": 0}, {"temperature": 0.0}, {"mix": "both"}):
        with pytest.raises(SpecError):
            WeightedExperts(SPEC, ENCODER, **options)
    with pytest.raises(SpecError, match="LoRASpec"):
        WeightedExperts(matrix.spec("delta"), ENCODER, mix="updates")


def test_a_generator_is_saved_with_its_experts(tmp_path):
    net = WeightedExperts.from_weights(weights(), TEXTS, ENCODER, top_k=2)
    net.save_pretrained(tmp_path / "generator")
    loaded = Generator.from_pretrained(tmp_path / "generator")
    assert isinstance(loaded, WeightedExperts)
    assert loaded.library.names == ["even digits", "odd digits", "round ones"]
    assert loaded.top_k == 2
    a, b = (g.generate(["a circle", "two"]).flat() for g in (net, loaded))
    assert torch.equal(a, b)


def test_an_empty_generator_makes_room_for_what_it_loads():
    net = NearestExpert.from_weights(weights(), TEXTS, ENCODER)
    empty = NearestExpert(SPEC, ENCODER)
    empty.load_tensors(net.state_dict())
    assert len(empty.library) == 3
    assert empty.config["descriptions"] == 6
    assert torch.equal(empty.generate("odd digits").flat()[0], weights().flat()[1])
    smaller = NearestExpert.from_weights(weights(2), ["a", "b"], ENCODER)
    with pytest.raises(RunError, match="shape"):
        smaller.load_tensors(net.state_dict())
