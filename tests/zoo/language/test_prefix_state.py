"""Prompts behind a generated prefix are read once, and give what reading them again gives."""

from __future__ import annotations

import pytest
import torch
from tiny_language import all_tasks, causal

from hypergen.specs import PrefixSpec
from hypergen.targets import make_target
from hypergen.zoo.language import CausalSuite, decoding
from hypergen.zoo.language.decoding import greedy_answers
from hypergen.zoo.language.scoring import measure


@pytest.mark.parametrize("description", [True, False])
def test_kept_keys_and_values_change_no_answer(tmp_path, monkeypatch, description):
    suite = CausalSuite(causal(), all_tasks(tmp_path), prompt={"description": description})
    target = make_target(suite.network, PrefixSpec(suite.network, 5))
    torch.manual_seed(1)
    weights = target.spec.from_flat(torch.randn(2, target.spec.numel))
    tasks, rows = torch.tensor([0, 1]), torch.arange(2).expand(2, 2)
    kept = greedy_answers(suite, target, weights, tasks, rows, "test")
    found = measure(suite, target, weights, tasks, "test", None, ("exact",))
    monkeypatch.setattr(decoding, "keeps_state", lambda target: False)
    assert greedy_answers(suite, target, weights, tasks, rows, "test") == kept
    assert len(set(kept)) > 1
    monkeypatch.setattr("hypergen.zoo.language.scoring.keeps_state", lambda target: False)
    again = measure(suite, target, weights, tasks, "test", None, ("exact",))
    assert torch.equal(found["exact"], again["exact"])
