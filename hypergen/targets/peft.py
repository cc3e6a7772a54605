"""Any PEFT method on a frozen network, its tensors generated."""

from __future__ import annotations

from torch import nn

from hypergen._utils.errors import WeightsError
from hypergen.specs import PeftSpec
from hypergen.specs.peft import build_config, wrap
from hypergen.targets.functional import FunctionalTarget


class PeftTarget(FunctionalTarget):
    """Runs `B` networks that differ in the tensors of one PEFT method.

    PEFT wraps a copy of the module tree that shares the base's tensors; the given model stays as
    it is. Methods that prepend virtual tokens (prefix and prompt tuning) lengthen the sequence:
    their logits begin with those of the virtual tokens where PEFT's do.

    Args:
        model: The frozen base.
        spec: A `PeftSpec` made for it.
        chunk_size: Networks run at a time, to bound memory; all when not given.

    Raises:
        WeightsError: The spec was made for another base.
    """

    def __init__(self, model: nn.Module, spec: PeftSpec, chunk_size: int | None = None) -> None:
        if not isinstance(spec, PeftSpec):
            raise WeightsError(f"PeftTarget takes a PeftSpec, not {type(spec).__name__}")
        super().__init__(model, spec, chunk_size)

    def _network(self) -> nn.Module:
        spec = self.spec
        assert isinstance(spec, PeftSpec)
        config = build_config(spec.config["peft_config"])
        wrapped, trainable = wrap(self.model, config, spec.config["seed"])
        if spec.exact_initial is None:
            spec.remember_initial(trainable)
        return wrapped.requires_grad_(False)
