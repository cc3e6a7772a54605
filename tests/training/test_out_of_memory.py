"""Runs on text that run out of memory name the options that would save some."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_language as tiny
import torch

from hypergen import cli
from hypergen.errors import RunError
from hypergen.evaluation.baselines import Scorer
from hypergen.targets import LoRATarget
from hypergen.training.language import LanguageDataModule

CONFIG = Path(__file__).parents[2] / "configs" / "text2lora_smollm2.yaml"
CPU = "DefaultCPUAllocator: not enough memory: you tried to allocate 8589934592 bytes."


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    made = tiny.causal()
    made.model.save_pretrained(folder)
    made.tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError(CPU)])
def test_training_names_its_knobs(model, tmp_path, monkeypatch, capfd, error):
    def call(*_, **__):
        raise error

    monkeypatch.setattr(LoRATarget, "call", call)
    line = ["-c", str(CONFIG), "--run", str(tmp_path / "run"), f"--data.model={model}"]
    line += [f"--data.tasks={tiny.all_tasks(tmp_path / 'tasks')}", "--data.encoder=hashing"]
    line += ["--data.heldout_families=[]", "--data.val_families=[]", "--data.max_length=64"]
    line += ["--data.zoo_steps=0", "--data.multitask_steps=0", "--data.oracle_steps=0"]
    line += ["--data.tasks_per_batch=2", "--data.samples_per_task=3", "--data.augment=null"]
    line += ["--data.wordings_per_task=1", "--model.objective=task", "--trainer.max_steps=1"]
    line += ["--trainer.accelerator=cpu"]
    assert cli.main(["fit", *line]) == 2
    said = capfd.readouterr().err.strip().splitlines()[-1]
    assert "training ran out of memory: lower --data.tasks_per_batch (now 2)" in said
    for knob in ("--data.samples_per_task (now 3)", "--data.max_length (now 64)"):
        assert knob in said
    assert "set --data.checkpoint true" in said
    assert "in validation, lower --data.eval_rows (now " in said


def test_evaluation_names_its_knobs(model, tmp_path):
    module = LanguageDataModule(
        model,
        str(tiny.all_tasks(tmp_path / "tasks")),
        heldout_families=[],
        val_families=[],
        encoder="hashing",
        method={"r": 2, "target_modules": ["q_proj"]},
        max_length=64,
        eval_rows=5,
        checkpoint=True,
    )
    assert "checkpoint" not in module.memory_advice

    def call(*_, **__):
        raise RuntimeError(CPU)

    module.target.call = call
    weights, tasks = module.spec.neutral(1), torch.tensor([1])
    told = r"evaluation ran out of memory: lower eval_rows \(.* now 5\) or max_length \(now 64\)"
    with pytest.raises(RunError, match=told):
        Scorer(module.suite, module.target).score(weights, torch.zeros_like(tasks), tasks)
