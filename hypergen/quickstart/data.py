"""The quickstart's data module: `hypergen fit -c configs/digits.yaml` and the demo use it."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any, ClassVar, Literal

from hypergen._utils.errors import UsageError
from hypergen.conditions import (
    BaseWeightsEncoder,
    ConditionEncoder,
    WithBaseWeights,
    text_encoder_by_name,
)
from hypergen.quickstart.images import load_images
from hypergen.quickstart.network import DigitNet, pretrain, save_network
from hypergen.quickstart.suite import DigitsSuite
from hypergen.specs import LoRASpec, Weights
from hypergen.targets import LoRATarget
from hypergen.training.data import Parts, TaskDataModule
from hypergen.zoo import train_weights


class DigitsDataModule(TaskDataModule):
    """Yes/no questions about scikit-learn's digits, for LoRAs of a small frozen network.

    The network is pretrained without labels and the zoo trained in one stacked call when they are
    first asked for (some seconds each).

    Args:
        hidden: Width of the frozen network.
        rank: Rank of the LoRAs.
        encoder: `"text"` (the sentence encoder if there is one, else hashed n-grams with a
            warning), `"hashing"`, or an encoder.
        text_layer: Hidden state of the sentence encoder that is read token by token.
        base_weights: Also hand the frozen network's own weights to generators that read them.
        n_subsets: Tasks that name their digits.
        n_composed: Training tasks composed of training properties and digits.
        wordings_per_task: Descriptions of a training task.
        pretrain_steps: Steps of the frozen network's pretraining.
        zoo_steps: Steps of the zoo's training.
        zoo_lr: Peak learning rate of the zoo's training.
        seed: Seed of everything.
        **batches: Arguments of `hypergen.training.TaskDataModule` for batches and splits.
    """

    VAL_SPLITS: ClassVar[dict[str, str]] = {"val": "val", "val_properties": "val"}
    TEST_SPLITS: ClassVar[dict[str, str]] = {
        "heldout_tasks": "train",
        "heldout_properties": "train",
    }

    def __init__(
        self,
        hidden: int = 128,
        rank: int = 4,
        encoder: Literal["text", "hashing"] | ConditionEncoder = "text",
        text_layer: int = 4,
        base_weights: bool = False,
        n_subsets: int = 600,
        n_composed: int = 400,
        wordings_per_task: int = 7,
        pretrain_steps: int = 1500,
        zoo_steps: int = 200,
        zoo_lr: float = 1e-2,
        seed: int = 0,
        **batches: Any,
    ) -> None:
        super().__init__(seed=seed, **batches)
        self.hidden, self.rank, self.encoder_name = hidden, rank, encoder
        self.text_layer, self.base_weights = text_layer, base_weights
        self.n_subsets, self.n_composed = n_subsets, n_composed
        self.wordings_per_task = wordings_per_task
        self.pretrain_steps, self.zoo_steps, self.zoo_lr = pretrain_steps, zoo_steps, zoo_lr

    def build(self) -> Parts:
        """Loads the images, pretrains the network and finds the encoder."""
        try:
            suite = DigitsSuite(self.seed, self.n_subsets, self.n_composed, self.wordings_per_task)
        except ValueError as error:  # more is held out than there is
            raise UsageError(str(error)) from error
        net = pretrain(load_images(self.seed), self.hidden, self.pretrain_steps, self.seed)
        spec = LoRASpec(net, ["fc1", "fc2", "out"], r=self.rank)
        target = LoRATarget(net, spec)
        encoder = text_encoder_by_name(self.encoder_name, self.text_layer)
        if self.base_weights:
            encoder = WithBaseWeights(encoder, BaseWeightsEncoder.from_model(net, spec.modules))
        return suite, encoder, target

    def build_zoo(self) -> tuple[Weights, list[int]]:
        """Trains one LoRA for each distinct question; tasks that ask the same share it."""
        tasks = self.suite.task_splits[self.train_tasks]
        first: dict[Hashable, int] = {}
        rows = [first.setdefault(self.suite.key(task), len(first)) for task in tasks]
        chosen = [tasks[rows.index(row)] for row in range(len(first))]
        weights = train_weights(
            self.target,
            self.spec,
            self.suite,
            chosen,
            **self.zoo_options,
            desc=f"training {len(chosen)} adapters at once",
        )
        return weights[rows], tasks

    @property
    def zoo_options(self) -> dict[str, Any]:
        """How the zoo is trained, for training oracles in the same way."""
        return {"steps": self.zoo_steps, "lr": self.zoo_lr, "seed": self.seed}

    def save(self, run: Path) -> None:
        """Writes the suite and the frozen network into a run folder."""
        super().save(run)
        net = self.target.model
        assert isinstance(net, DigitNet)
        save_network(net, run / "target")
