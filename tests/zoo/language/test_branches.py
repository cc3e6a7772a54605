"""Texts that begin alike: one sequence gives what each text gives alone."""

from __future__ import annotations

import pytest
import tiny_language as tiny
import torch
from hypothesis import given
from hypothesis import strategies as st

from hypergen.errors import UsageError
from hypergen.specs import LoRASpec
from hypergen.targets import LoRATarget
from hypergen.zoo.language.answers import answer_only
from hypergen.zoo.language.branches import Branch, lay_out, paths
from hypergen.zoo.language.tokens import IGNORED

F32 = torch.float32
NETWORK = answer_only(tiny.causal().model)
TOKENS = st.lists(st.integers(5, 40), min_size=1, max_size=5)


@st.composite
def trees(draw):
    out = []
    for _ in range(draw(st.integers(1, 3))):
        tree = [Branch(draw(TOKENS))]
        for number in range(1, draw(st.integers(2, 6))):
            tokens = draw(TOKENS)
            labels = draw(st.integers(0, len(tokens)))
            tree.append(Branch(tokens, draw(st.integers(0, number - 1)), labels))
        tree.append(Branch([7, 8], 0, 2))
        out.append(tree)
    return out


def scores(laid, network=NETWORK):
    with torch.no_grad():
        return laid.log_likelihoods(network(**laid.inputs))


@given(trees())
def test_one_sequence_gives_what_each_path_gives_alone(made):
    together, alone = lay_out(made, 0, F32), lay_out(paths(made), 0, F32)
    assert together.branches == alone.branches == len(alone.labels)
    assert torch.equal(together.counts, alone.counts)
    assert torch.equal(together.labels[together.real], alone.labels[alone.real])
    assert torch.allclose(scores(together), scores(alone), atol=1e-4)


def test_the_numbers_are_those_of_the_plain_model():
    tree = [Branch([9, 10, 11]), Branch([12, 13], 0, 2), Branch([14, 15, 16], 1, 1)]
    with torch.no_grad():
        logp = tiny.causal().model(torch.tensor([[9, 10, 11, 12, 13, 14, 15, 16]])).logits[0]
    logp = logp.log_softmax(-1)
    expected = [logp[2, 12] + logp[3, 13], logp[6, 16]]
    assert torch.allclose(scores(lay_out([tree], 0, F32)).float(), torch.stack(expected), atol=1e-5)


def test_what_is_shared_is_there_once():
    story, question = list(range(5, 35)), [6, 7, 8]
    tree = [Branch(story), *(Branch(question, 0) for _ in range(4))]
    tree += [Branch([9], q, 1) for q in range(1, 5) for _ in range(4)]
    assert lay_out([tree], 0, F32).inputs["input_ids"].shape == (1, 30 + 4 * 3 + 16)
    assert lay_out(paths([tree]), 0, F32).inputs["input_ids"].shape == (16, 34)


def test_padding_of_other_rows_changes_nothing():
    small, large = [Branch([9, 10], labels=1)], [Branch([9] * 20), Branch([10], 0, 1)]
    alone = scores(lay_out([small], 0, F32))
    both = scores(lay_out([small, large], 0, F32))
    assert torch.allclose(alone, both[:1], atol=1e-5)
    assert int((lay_out([small, large], 0, F32).labels == IGNORED).sum()) == 0


def test_networks_see_their_own_trees():
    spec = LoRASpec(NETWORK, ["q_proj", "v_proj"], r=2)
    target = LoRATarget(NETWORK, spec)
    weights = spec.from_flat(0.3 * torch.randn(2, spec.numel))
    tree = [Branch([9, 10, 11]), Branch([12, 13], 0, 2), Branch([14], 0, 1)]
    laid = lay_out([tree, tree], 0, F32)
    with torch.no_grad():
        found = laid.log_likelihoods(target(weights, laid.inputs)).view(2, 2)
        one = lay_out([tree], 0, F32)
        own = [one.log_likelihoods(target(w, one.inputs)) for w in weights]
    assert not torch.allclose(found[0], found[1], atol=1e-3)
    assert torch.allclose(found, torch.stack(own), atol=1e-5)


def test_what_cannot_be_laid_out_is_refused():
    with pytest.raises(ValueError, match="nothing that it could be predicted from"):
        lay_out([[Branch([9, 10], labels=2)]], 0, F32)
    with pytest.raises(UsageError, match="has 4 tokens, and the model takes 3"):
        lay_out([[Branch([9, 10, 11]), Branch([9], 0, 1)]], 0, F32, most=3)
