"""Any PEFT method on a frozen network, its tensors generated."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call

from hypergen._utils.errors import WeightsError
from hypergen.specs import PeftSpec, Weights
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

    @property
    def keeps_cache(self) -> bool:
        """Methods with virtual tokens read the whole text again for each token."""
        called: Any = self._called
        return not called.active_peft_config.is_prompt_learning

    def _step(self, weights: Weights) -> Callable[..., Any]:
        if self.keeps_cache:
            return super()._step(weights)
        return functools.partial(self._reread, self.parameters_of(weights))

    def _reread(self, parameters: dict[str, Tensor], **kwargs: Any) -> Any:
        from transformers.modeling_outputs import CausalLMOutputWithPast

        from hypergen.targets.decoding import right_padded

        def run(parameters: dict[str, Tensor], inputs: dict[str, Tensor], last: Tensor) -> Tensor:
            arguments = {**inputs, "use_cache": False}
            output = functional_call(self._called, parameters, (), arguments, tie_weights=False)
            at = (output.logits.shape[1] + last)[..., None].expand(-1, -1, output.logits.shape[2])
            logits: Tensor = output.logits.gather(1, at)
            return logits

        return CausalLMOutputWithPast(logits=self._mapped(run, parameters, *right_padded(**kwargs)))
