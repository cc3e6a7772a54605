from __future__ import annotations

import pytest
import torch
from tiny_language import all_tasks, encoder
from torch.nn import functional as F

from hypergen.errors import UsageError
from hypergen.specs import LoRASpec
from hypergen.targets import LoRATarget
from hypergen.zoo.language import SentenceSuite, read_tasks
from hypergen.zoo.language.sentence import answerable


@pytest.fixture
def suite(tmp_path):
    tasks, _ = read_tasks(all_tasks(tmp_path))
    return SentenceSuite(encoder(), [t for t in tasks if answerable(t)], temperature=0.1)


def embedding(suite, text):
    """One text, no padding."""
    inputs = suite.language_model.tokenizer(text, return_tensors="pt")
    hidden = suite.language_model.model(inputs["input_ids"]).last_hidden_state
    return F.normalize(hidden[0].mean(0), dim=0)


@torch.no_grad()
def test_an_input_is_compared_with_its_choices(suite):
    assert suite.names == ("first", "kinds", "swapped")
    tasks, rows = torch.tensor([0, 1]), torch.tensor([[0, 4], [2, 15]])
    batch = suite.batch(tasks, rows)
    output = suite.network(**batch["inputs"])
    logits = suite.logits(output, batch)
    expected = []
    for n in range(4):
        task = suite.tasks[n // 2]
        instance = task.instances["train"][int(rows[n // 2, n % 2])]
        own = embedding(suite, instance.input)
        options = task.choices(instance)
        each = torch.stack([own @ embedding(suite, text) for text in options]) / 0.1
        torch.testing.assert_close(logits[n, : len(options)], each, atol=1e-4, rtol=1e-4)
        right = options.index(instance.outputs[0])
        expected.append(F.cross_entropy(each[None], torch.tensor([right])))
    losses = suite.losses(output, batch)
    torch.testing.assert_close(
        losses, torch.stack(expected).view(2, 2).mean(1), atol=1e-4, rtol=1e-4
    )


@torch.no_grad()
def test_accuracy_is_that_of_the_nearest_choice(suite):
    spec = LoRASpec(suite.network, ["query", "value"], r=2)
    target = LoRATarget(suite.network, spec)
    tasks = torch.tensor([1, 0])
    result = suite.evaluate(target, spec.neutral(2), tasks)
    for i, number in enumerate(tasks.tolist()):
        task = suite.tasks[number]
        hits = []
        for instance in task.instances["test"]:
            own = embedding(suite, instance.input)
            options = task.choices(instance)
            best = max(options, key=lambda text: float(own @ embedding(suite, text)))
            hits.append(best == instance.outputs[0])
        assert float(result["accuracy"][i]) == pytest.approx(sum(hits) / len(hits))
    torch.testing.assert_close(suite.score(target, spec.neutral(2), tasks), result["accuracy"])


def test_open_outputs_are_refused(tmp_path):
    with pytest.raises(UsageError, match="'echo' has open outputs"):
        SentenceSuite(encoder(), all_tasks(tmp_path))
    tasks, _ = read_tasks(tmp_path, names=["kinds"])
    with pytest.raises(UsageError, match="temperature is 0"):
        SentenceSuite(encoder(), tasks, temperature=0)
