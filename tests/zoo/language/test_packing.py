"""Samples behind one description are what they are alone."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from hypergen.errors import UsageError
from hypergen.specs import LoRASpec
from hypergen.targets import LoRATarget
from hypergen.zoo.language import CausalSuite

sys.path.insert(0, str(Path(__file__).parent))
import tiny_language as tiny

TASKS = torch.tensor([3, 0, 2])
ROWS = torch.tensor([[0, 1, 2], [3, 1, 1], [5, 2, 0]])


@pytest.fixture(params=["sdpa", "eager"])
def made(request, tmp_path):
    suites = [
        CausalSuite(
            tiny.causal(request.param),
            tiny.all_tasks(tmp_path / f"tasks{pack}"),
            prompt={"description": True},
            heldout_descriptions=0,
            pack=pack,
        )
        for pack in (False, True)
    ]
    spec = LoRASpec(suites[0].network, r=2, target_modules=["q_proj", "v_proj"])
    torch.manual_seed(0)
    weights = spec.from_flat(0.3 * torch.randn(3, spec.numel))
    return suites, [LoRATarget(s.network, spec) for s in suites], weights


def losses(suite, target, weights, batch):
    return suite.sample_losses(target(weights, batch["inputs"]), batch)


@pytest.mark.parametrize("wordings", [None, [1, 0, -1]])
def test_packed_losses_are_those_of_single_samples(made, wordings):
    suites, targets, weights = made
    wordings = None if wordings is None else torch.tensor(wordings)
    batches = [s.train_batch(TASKS, ROWS, "train", wordings) for s in suites]
    assert [len(b["inputs"]["input_ids"]) for b in batches] == [9, 3]
    assert batches[1]["inputs"]["input_ids"].numel() < batches[0]["inputs"]["input_ids"].numel()
    single, packed = (
        losses(s, t, weights, b) for s, t, b in zip(suites, targets, batches, strict=True)
    )
    torch.testing.assert_close(packed[0], single[0], rtol=1e-4, atol=1e-5)
    assert torch.equal(packed[1], single[1])


def test_gradients_agree(made):
    suites, targets, weights = made
    gradients = []
    for suite, target in zip(suites, targets, strict=True):
        flat = weights.flat().clone().requires_grad_()
        batch = suite.train_batch(TASKS, ROWS)
        loss = suite.loss(target(target.spec.from_flat(flat), batch["inputs"]), batch)
        gradients.append(torch.autograd.grad(loss, flat)[0])
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-5)


def test_a_sample_does_not_see_its_neighbours(made):
    (_, suite), (_, target), weights = made
    first = losses(suite, target, weights, suite.train_batch(TASKS, ROWS))[0]
    other = ROWS.clone()
    other[:, 1] = torch.tensor([4, 0, 3])
    second = losses(suite, target, weights, suite.train_batch(TASKS, other))[0]
    torch.testing.assert_close(first[:, [0, 2]], second[:, [0, 2]])
    assert not torch.allclose(first[:, 1], second[:, 1])
    alone = suite.train_batch(TASKS[1:2], ROWS[1:2])
    torch.testing.assert_close(losses(suite, target, weights[1], alone)[0], first[1:2])


def test_the_prompt_loses_its_description_at_the_asked_rate(tmp_path):
    folder = tiny.all_tasks(tmp_path)
    for rate, expected in ((0.0, 0), (1.0, 40), (0.5, 20)):
        suite = CausalSuite(
            tiny.causal(), folder, prompt={"description": True}, prompt_dropout=rate, pack=True
        )
        random = torch.Generator().manual_seed(0)
        batch = suite.sample(torch.zeros(40, dtype=torch.long), 1, random)
        texts = suite.language_model.tokenizer.batch_decode(batch["inputs"]["input_ids"])
        dropped = sum(text.startswith("Input") for text in texts)
        assert abs(dropped - expected) <= (8 if 0 < rate < 1 else 0)
    with pytest.raises(UsageError, match="prompt_dropout is 2"):
        CausalSuite(tiny.causal(), folder, prompt_dropout=2)


def test_mean_lengths_are_of_what_is_put_together(made):
    (single, suite), _, _ = made
    tasks = torch.arange(4)
    rows = torch.zeros(4, 2, dtype=torch.long)
    for one, name in ((single, "single"), (suite, "packed")):
        lengths = one.mean_lengths(2)
        batch = one.train_batch(tasks, rows)["inputs"]["input_ids"]
        tokens = (batch != one.pad).sum(1).view(4, -1).sum(1)
        assert (lengths - tokens).abs().max() < 6, name
    assert bool((suite.mean_lengths(2) < single.mean_lengths(2)).all())
