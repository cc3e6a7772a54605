from __future__ import annotations

import pytest
import torch
from peft import IA3Config
from tiny_language import all_tasks, causal, encoder

from hypergen.errors import UsageError
from hypergen.specs import LoRASpec, PeftSpec
from hypergen.targets import LoRATarget, PeftTarget
from hypergen.zoo.language import AdapterRun, CausalSuite, SentenceSuite, read_tasks, train_adapters
from hypergen.zoo.language.sentence import answerable


def sentence(folder):
    tasks, _ = read_tasks(all_tasks(folder))
    suite = SentenceSuite(encoder(), [t for t in tasks if answerable(t)])
    spec = LoRASpec(suite.network, ["query", "value"], r=2)
    return suite, spec, LoRATarget(suite.network, spec)


def language(folder):
    suite = CausalSuite(causal(), all_tasks(folder), eval_samples=2)
    spec = LoRASpec(suite.network, ["q_proj", "v_proj"], r=2)
    return suite, spec, LoRATarget(suite.network, spec)


def ia3(folder):
    suite = CausalSuite(causal("eager"), all_tasks(folder), eval_samples=2)
    config = IA3Config(
        target_modules=["k_proj", "v_proj", "down_proj"],
        feedforward_modules=["down_proj"],
        task_type="CAUSAL_LM",
    )
    spec = PeftSpec(suite.language_model.model, config)
    return suite, spec, PeftTarget(suite.network, spec)


RUNS = [AdapterRun(1, 0, 2e-2), AdapterRun(2, 1, 1e-2, 0.1), AdapterRun(1, 5, 5e-3)]


@pytest.mark.parametrize("make", [sentence, language, ia3])
def test_a_stack_equals_its_members_one_by_one(tmp_path, make):
    suite, spec, target = make(tmp_path)
    options = {"steps": 8, "samples": 3, "save_steps": [0, 4, 8]}
    stacked = train_adapters(target, spec, suite, RUNS, **options)
    assert stacked.weights.shape == (3, 3, spec.numel)
    assert stacked.steps == (0, 4, 8)
    for m, run in enumerate(RUNS):
        alone = train_adapters(target, spec, suite, [run], **options)
        torch.testing.assert_close(stacked.weights[:, m], alone.weights[:, 0], atol=1e-5, rtol=1e-5)
        for split in ("train", "test"):
            torch.testing.assert_close(
                stacked.metrics[split]["loss"][:, m],
                alone.metrics[split]["loss"][:, 0],
                atol=1e-5,
                rtol=1e-4,
                equal_nan=True,
            )
    moved = (stacked.weights[-1] - stacked.weights[0]).abs().amax(1)
    assert bool((moved > 1e-3).all())


def test_training_learns_and_the_base_is_the_start(tmp_path):
    suite, spec, target = sentence(tmp_path)
    runs = [AdapterRun(task, 0, 2e-2) for task in (0, 1, 2)]
    result = train_adapters(
        target, spec, suite, runs, steps=40, samples=8, save_steps=[0, 40], evaluate=("train",)
    )
    start = result.metrics["train"]["accuracy"][0]
    torch.testing.assert_close(start, result.base["train"]["accuracy"])
    assert bool((result.metrics["train"]["accuracy"][1] > 0.9).all())
    # Two tasks with opposite answers: one of them is wrong at the start.
    assert float(result.base["train"]["accuracy"][1:].mean()) == pytest.approx(0.5)


def test_adam_is_that_of_torch(tmp_path):
    suite, spec, target = sentence(tmp_path)
    run = AdapterRun(1, 3, 1e-2, 0.1)
    options = {"steps": 5, "samples": 24, "warmup": 0.0, "schedule": "constant", "clip": None}
    ours = train_adapters(target, spec, suite, [run], **options).weights[0]
    flat = spec.initial(3)[None].requires_grad_()
    optimizer = torch.optim.AdamW([flat], lr=1e-2, weight_decay=0.1)
    rows = torch.arange(24)[None]  # one epoch a step: the order does not matter
    for _ in range(5):
        batch = suite.batch(torch.tensor([1]), rows)
        optimizer.zero_grad()
        suite.losses(target(spec.from_flat(flat), batch["inputs"]), batch).sum().backward()
        optimizer.step()
    torch.testing.assert_close(ours, flat.detach(), atol=2e-5, rtol=1e-4)


def test_the_order_of_steps_is_reported(tmp_path):
    suite, spec, target = sentence(tmp_path)
    seen = []
    train_adapters(target, spec, suite, RUNS[:1], steps=3, samples=2, on_step=seen.append)
    assert seen == [1, 2, 3]


def test_bad_settings_are_named(tmp_path):
    suite, spec, target = sentence(tmp_path)
    for options, words in [
        ({"save_steps": [9]}, "between 0 and steps=3"),
        ({"save_steps": []}, "between 0 and steps=3"),
        ({"schedule": "wave"}, "schedule is 'wave'"),
    ]:
        with pytest.raises(UsageError, match=words):
            train_adapters(target, spec, suite, RUNS, **{"steps": 3, **options})
    with pytest.raises(UsageError, match="runs is empty"):
        train_adapters(target, spec, suite, [])
    with pytest.raises(UsageError, match="steps is 0"):
        train_adapters(target, spec, suite, RUNS, steps=0)
