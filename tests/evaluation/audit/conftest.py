"""A zoo of small digit networks, cut into training, held-out and unused runs."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from hypergen.evaluation.audit import audit
from hypergen.evaluation.audit.zoos import judge_of, networks_of
from hypergen.evaluation.networks import problem_of
from hypergen.specs import LoRASpec
from hypergen.zoo import build_zoo
from hypergen.zoo.build import NetworkZoo
from hypergen.zoo.ensemble import Classification, Digits
from hypergen.zoo.networks import MLP


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """80 training runs, 24 held-out ones, 24 that nobody knows; and one call that audits."""
    recipe = NetworkZoo(
        "digits", MLP(64, (8,), 10), Classification(Digits()), runs=128, steps=150, lr=1e-2
    )
    zoo = build_zoo(recipe, tmp_path_factory.mktemp("audit") / "zoo", workers=1)
    problem = problem_of(zoo)
    every = networks_of(zoo, problem)
    training, heldout, unknown = (
        every[torch.arange(*part)] for part in ((0, 80), (80, 104), (104, 128))
    )
    judge = judge_of(zoo, problem)

    def run(samples, **options):
        options = {"resamples": 100, "baselines": 8, "judge_by": judge, **options}
        config = options.pop("config", zoo.architecture.config)
        return audit(zoo.spec, samples, training, heldout, config=config, **options)

    return SimpleNamespace(
        zoo=zoo,
        problem=problem,
        training=training,
        heldout=heldout,
        unknown=unknown,
        judge=judge,
        run=run,
    )


@pytest.fixture
def tiny_lora():
    """LoRA of two layers of unlike sizes."""
    model = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.ReLU(), torch.nn.Linear(5, 4))
    return LoRASpec(model, ["0", "2"], r=2, alpha=3)
