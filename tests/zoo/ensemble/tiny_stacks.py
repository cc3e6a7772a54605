"""Small data and the ordinary training loop that stacks are compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from hypergen.zoo.ensemble import ImageSource, LabelledImages, schedule_factors
from hypergen.zoo.ensemble.order import DataOrder
from hypergen.zoo.ensemble.stack import starting_weights


@dataclass(frozen=True)
class Blobs(ImageSource):
    """Noisy patterns, one a class: learned within a few steps."""

    classes: ClassVar[tuple[str, ...]] = ("a", "b", "c")
    noun: ClassVar[str] = "letter"

    shape: tuple[int, int, int] = (1, 4, 4)
    samples: int = 60

    def load(self):
        generator = torch.Generator().manual_seed(0)
        centres = torch.randn(3, *self.shape, generator=generator)
        images, labels = {}, {}
        for split, count in (("train", self.samples), ("val", 20), ("test", 30)):
            labels[split] = torch.arange(count) % 3
            noise = torch.randn(count, *self.shape, generator=generator)
            images[split] = centres[labels[split]] + 0.3 * noise
        return LabelledImages(images, labels, self.classes)


def train_alone(network, member, problem, *, steps, batch_size, optimizer, schedule, flatten):
    """One network, by autograd and `torch.optim`, from the same start and the same batches."""
    own = member.network or network
    spec, module = own.spec(), own.module()
    module.load_state_dict(spec.unpack(starting_weights(own, [member])[0]))
    decayed = [p for n, p in module.named_parameters() if spec[n].role == "weight"]
    plain = [p for n, p in module.named_parameters() if spec[n].role != "weight"]
    groups = [
        {"params": decayed, "weight_decay": member.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    if optimizer == "adamw":
        updater = torch.optim.AdamW(groups, lr=member.lr)
    else:
        updater = torch.optim.SGD(groups, lr=member.lr, momentum=0.9)
    inputs = problem.inputs("train")
    inputs = inputs.flatten(1) if flatten else inputs
    order = DataOrder([member.seed], len(inputs), batch_size).take(steps)
    targets = problem.targets("train", torch.tensor([member.task]), order)
    for i, factor in enumerate(schedule_factors(schedule, steps)):
        for group in updater.param_groups:
            group["lr"] = member.lr * factor
        loss = problem.loss(module(inputs[order[i, 0]]), targets[i, 0])
        updater.zero_grad()
        loss.backward()
        updater.step()
    return spec.pack(module.state_dict()), module.eval()
