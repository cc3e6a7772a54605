"""Averaged weights of the generator, and of nothing else."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from hypergen._utils.errors import RunError, UsageError


class GeneratorEMA(Callback):
    """Exponential moving average of the generator's trained parameters.

    Polyak and Juditsky, SIAM J. Control Optim. 30(4), 1992; with the warm-up of the decay,
    min(decay, (1 + n) / (10 + n)) after n updates, that keeps the start out of short runs.

    The average takes the place of the parameters in validation, and for good when the fit ends;
    checkpoints hold both. Unlike Lightning's `EMAWeightAveraging` it copies the generator alone:
    never the frozen target, and no optimiser sees it.

    Of generators that are trained in two stages the average begins with the second one. What only
    the first one trains (`Generator.unaveraged`) is never averaged: the second was trained on it as
    it is.

    Args:
        decay: Weight of the old average at each update.

    Raises:
        UsageError: The decay is not in [0, 1).
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise UsageError(f"ema_decay must be at least 0 and below 1, not {decay}")
        self.decay = decay
        self.updates = 0
        self.average: dict[str, Tensor] | None = None
        self._swapped = False
        self._step = 0

    # -- training ------------------------------------------------------------------------------

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts from the parameters, or puts a resumed average on their device."""
        own = _parameters(pl_module)
        if self.average is None:
            self.average = {name: p.detach().clone() for name, p in own.items()}
        elif {n: p.shape for n, p in own.items()} != {n: a.shape for n, a in self.average.items()}:
            raise RunError("the checkpoint's averaged weights belong to another generator")
        else:
            self.average = {name: self.average[name].to(p.device) for name, p in own.items()}
        self._step = trainer.global_step

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Updates the average after each step of the optimiser."""
        if trainer.global_step == self._step or self.average is None:
            return  # gradients are being accumulated
        self._step = trainer.global_step
        own = _parameters(pl_module)
        if (
            getattr(pl_module.generator, "stage", 2) == 1
        ):  # there is nothing to average before the second stage
            torch._foreach_copy_(list(self.average.values()), [own[name] for name in self.average])
            return
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        exact = getattr(pl_module.generator, "unaveraged", ())
        kept = [name for name in self.average if name.startswith(exact)]
        lagging = [name for name in self.average if not name.startswith(exact)]
        for names, share in ((kept, 1.0), (lagging, 1 - decay)):
            if names:
                averages = [self.average[name] for name in names]
                torch._foreach_lerp_(averages, [own[name] for name in names], share)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validates the average."""
        if self.average is not None and not self._swapped:
            self._swap(pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Goes on training the parameters."""
        if self._swapped:
            self._swap(pl_module)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Never leaves the two exchanged."""
        if self._swapped:
            self._swap(pl_module)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """The average is the result of a fit that reached its end."""
        finished = stage == "fit" and not trainer.interrupted
        if finished and self.average is not None and self.updates:
            self._swap(pl_module)
            self._swapped, self.average = False, None

    @torch.no_grad()
    def _swap(self, module: LightningModule) -> None:
        assert self.average is not None
        for name, parameter in _parameters(module).items():
            other = self.average[name].to(parameter.device)
            self.average[name] = parameter.detach().clone()
            parameter.copy_(other)
        self._swapped = not self._swapped

    # -- checkpoints ---------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The average and the number of updates."""
        return {"updates": self.updates, "average": self.average}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from a checkpoint."""
        self.updates, self.average = state_dict["updates"], state_dict["average"]


def _parameters(module: LightningModule) -> dict[str, Tensor]:
    generator = module.generator
    assert isinstance(generator, nn.Module)
    return {n: p for n, p in generator.named_parameters() if p.requires_grad}
