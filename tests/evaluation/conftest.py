"""One trained toy for all tests of this folder."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

for name in ("toy_suite", "text_run"):  # importlib mode puts no folder of tests on the path
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)


@pytest.fixture(scope="session")
def toy():
    import torch
    from toy_suite import Toy

    torch.set_num_threads(1)
    return Toy()


@pytest.fixture(scope="session")
def evaluation(toy):
    """The toy's own held-out splits, with every baseline and a fitted gain."""
    from hypergen.evaluation import evaluate, fit_gain

    val = toy.suite.task_splits["val"]
    fit_gain(toy.generator, toy.target, toy.suite, val, ["train", "heldout"], limit=None)
    return evaluate(
        toy.generator,
        toy.target,
        toy.suite,
        zoo=toy.zoo,
        multitask=toy.multitask,
        oracle_steps=100,
        oracle_options=toy.options,
    )
