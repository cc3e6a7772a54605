"""Cross-entropy and distillation at chosen tokens, one forward pass for both."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from hypergen._utils.errors import UsageError
from hypergen.zoo.language.branches import Laid
from hypergen.zoo.language.tokens import IGNORED


class AnswerLoss:
    """The loss of labels, each with a share of its own.

    Σ share · (cross_entropy · CE + distillation · KL(teacher ‖ student)) / Σ share. Distillation
    from the model that has the context in its prompt: Snell, Klein and Zhong, "Learning by
    Distilling Context", 2022, arXiv:2209.15189.

    Args:
        cross_entropy: Factor of the cross-entropy to the labels.
        distillation: Factor of the divergence from the teacher.

    Raises:
        UsageError: A factor is negative, or both are 0.
    """

    def __init__(self, cross_entropy: float = 1.0, distillation: float = 0.0) -> None:
        if min(cross_entropy, distillation) < 0 or cross_entropy + distillation <= 0:
            raise UsageError(
                f"cross_entropy={cross_entropy} and distillation={distillation} must not be "
                "negative, and one of them above 0"
            )
        self.cross_entropy, self.distillation = cross_entropy, distillation

    def __call__(self, output: Any, batch: Mapping[str, Any]) -> Tensor:
        """Scalar loss.

        Args:
            output: Logits `[N, K, V]`.
            batch: Holds `labels` and `share` `[N, K]`, and `teacher_logits` `[N, K, V]` where there
                is distillation.
        """
        labels = batch["labels"]
        real = labels != IGNORED
        share = batch["share"][real]
        logits = output[real].float()
        losses = torch.zeros_like(share)
        if self.cross_entropy:
            entropy = F.cross_entropy(logits, labels[real], reduction="none")
            losses = losses + self.cross_entropy * entropy
        if self.distillation and "teacher_logits" in batch:
            teacher = batch["teacher_logits"][real].float().log_softmax(-1)
            own = logits.log_softmax(-1)
            divergence = F.kl_div(own, teacher, log_target=True, reduction="none").sum(-1)
            losses = losses + self.distillation * divergence
        return (losses * share).sum() / share.sum()


def loss_batch(laid: Laid, share: Tensor, device: torch.device) -> dict[str, Any]:
    """What target and loss read, sent to where the network is.

    Args:
        laid: The texts.
        share: `[branches]`, what the labels of each branch count together.
        device: Where to.
    """
    each = (share / laid.counts)[laid.owner]
    return {
        "inputs": {name: value.to(device) for name, value in laid.inputs.items()},
        "labels": laid.labels.to(device),
        "label_mask": laid.real.to(device),
        "share": each.masked_fill(~laid.real, 0).to(device),
    }


def teacher_batch(taught: Laid, device: torch.device) -> dict[str, Any]:
    """The same labels in the same order behind their contexts, for `ask_teacher`."""
    return {
        "teacher": {name: value.to(device) for name, value in taught.inputs.items()},
        "teacher_mask": taught.real.to(device),
    }


@torch.no_grad()
def ask_teacher(base: Callable[[Any], Tensor], batch: dict[str, Any]) -> None:
    """Puts `teacher_logits` `[N, K, V]` into a batch, in place of what `teacher_batch` made.

    Args:
        base: The unchanged network.
        batch: Of `loss_batch` and `teacher_batch`.
    """
    flat = base(batch.pop("teacher"))[batch.pop("teacher_mask")]
    mask = batch["label_mask"]
    out = flat.new_zeros(*mask.shape, flat.shape[-1])
    out[mask] = flat
    batch["teacher_logits"] = out
