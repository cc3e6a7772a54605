"""A run of text tasks on a tiny language model, with every baseline."""

from __future__ import annotations

import argparse
from pathlib import Path

import tiny_language as tiny
import torch

from hypergen.conditions import HashingEncoder
from hypergen.evaluation import RunAssets, Zoo
from hypergen.generators import MLPGenerator
from hypergen.specs import LoRASpec
from hypergen.targets import LoRATarget
from hypergen.zoo.language import CausalSuite


class Text:
    """A suite whose tasks are all held out but one, and weights far from the base."""

    def __init__(self, folder: Path, model: str) -> None:
        swapped = {**tiny.kinds(True), "Definition": ["say a thing", "no , say very big thing"]}
        tiny.write_tasks(
            folder, echo=tiny.echo(), first=tiny.first_of_two(), kinds=tiny.kinds(), swapped=swapped
        )
        self.suite = CausalSuite(
            model,
            folder,
            prompt={"description": True},
            heldout_families=["Lists", "Kinds"],
            heldout_descriptions=0,
            max_length=64,
            eval_samples=4,
        )
        self.spec = LoRASpec(self.suite.network, ["q_proj", "v_proj"], r=2)
        self.target = LoRATarget(self.suite.network, self.spec)
        torch.manual_seed(0)
        self.generator = MLPGenerator(self.spec, HashingEncoder(32), hidden=16, depth=1)
        for parameter in self.generator.parameters():
            parameter.data += 0.2 * torch.randn(parameter.shape)
        self.generator.eval()
        self.zoo = Zoo(self.weights(1), [0])

    def weights(self, seed):
        torch.manual_seed(seed)
        return self.spec.from_flat(0.3 * torch.randn(1, self.spec.numel))

    @property
    def assets(self):
        settings = {"oracle_steps": 2, "oracle_options": {"samples": 2}, "chunk": 4, "shots": 1}
        return RunAssets(
            self.suite, self.zoo, self.weights(2), None, settings, multitask_plain=self.weights(3)
        )


def make(folder: Path) -> Text:
    """The tasks and the model in files of a folder."""
    made = tiny.causal()
    made.model.save_pretrained(folder / "model")
    made.tokenizer.save_pretrained(folder / "model")
    return Text(folder / "tasks", str(folder / "model"))


def save(text: Text, folder: Path) -> Path:
    """The run folder."""
    text.generator.save_pretrained(folder / "generator")
    text.assets.save(folder)
    return folder


def options(run: Path | str, **more) -> argparse.Namespace:
    """What `hypergen evaluate` hands over."""
    return argparse.Namespace(
        **{"run": str(run), "tasks": None, "split": "test", "report": None, "json": "-", **more}
    )
