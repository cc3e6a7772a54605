"""The frozen model, its target and the encoder of documents, by the arguments of recipes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import nn

from hypergen._utils.errors import ConditionError, SpecError, UsageError
from hypergen._utils.language_models import LanguageModel, load_language_model
from hypergen.conditions import ConditionEncoder, DocumentEncoder
from hypergen.conditions.context import ContextEncoder
from hypergen.specs import PrefixSpec, WeightSpec
from hypergen.targets import Target, make_target
from hypergen.zoo.language.answers import answer_only
from hypergen.zoo.language.methods import is_lora, method_spec

EncoderName = Literal["document", "context"]


@dataclass(frozen=True)
class TextOptions:
    """How a language model is loaded, adapted and reads documents.

    Attributes:
        model: `"smollm2"`, a folder, a GGUF file or a hub name.
        method: Arguments of `LoRASpec`; with the key `num_virtual_tokens` alone, of `PrefixSpec`;
            with `peft_type`, of any method of PEFT.
        encoder: `"document"` (`DocumentEncoder`) or `"context"` (`ContextEncoder`), which read with
            the target's own model, or an encoder of documents, texts or demonstrations.
        encoder_args: Further arguments of a named encoder.
        dtype: Dtype of the frozen model.
        attention: transformers' `attn_implementation`.
        checkpoint: See `hypergen.targets.make_target`.
        seed: Seed of what PEFT draws and never trains.
    """

    model: str
    method: Mapping[str, Any]
    encoder: EncoderName | ConditionEncoder = "document"
    encoder_args: Mapping[str, Any] | None = None
    dtype: str = "float32"
    attention: str | None = None
    checkpoint: bool = False
    seed: int = 0

    @property
    def name(self) -> str:
        """The model's name, a folder as a whole path."""
        return str(Path(self.model).resolve()) if Path(self.model).exists() else self.model

    @property
    def load(self) -> dict[str, Any]:
        """Further arguments of `load_language_model`."""
        # torch.func cannot trace every fused attention.
        traced = not is_lora(self.method)
        attention = self.attention or ("eager" if traced else None)
        return {"dtype": self.dtype, **({} if attention is None else {"attention": attention})}

    def parts(
        self, loaded: LanguageModel | None = None, network: nn.Module | None = None
    ) -> tuple[LanguageModel, ConditionEncoder, Target]:
        """Loads the model unless it is given, and makes encoder and target.

        Args:
            loaded: The model.
            network: Its view that gives logits at chosen positions only; made if not given.

        Raises:
            UsageError: An option is wrong, or the model is not causal.
        """
        if loaded is None:
            loaded = load_language_model(self.name, kind="causal", **self.load)
        network = answer_only(loaded.model) if network is None else network
        try:
            spec = method_spec(loaded, self.method, self.seed)
        except SpecError as error:
            raise UsageError(f"method: {error}") from error
        encoder = self._encoder(loaded, network, spec)
        return loaded, encoder, make_target(network, spec, checkpoint=self.checkpoint)

    def _encoder(
        self, loaded: LanguageModel, network: nn.Module, spec: WeightSpec
    ) -> ConditionEncoder:
        if isinstance(self.encoder, ConditionEncoder):
            if self.encoder_args:
                raise UsageError("encoder_args are for encoders by name")
            return self.encoder
        arguments = dict(self.encoder_args or {})
        try:
            if self.encoder == "document":
                modules = arguments.pop("modules", None) or getattr(spec, "modules", None)
                if not modules:
                    raise UsageError(
                        "say which modules the encoder reads for: --data.encoder_args.modules"
                    )
                # The target's own view, so that both move to an accelerator together.
                return DocumentEncoder.from_model(
                    network, loaded.tokenizer, modules, name=self.name, **arguments
                )
            if self.encoder == "context":
                arguments = {"takes": "document", "dtype": self.dtype, **arguments}
                if isinstance(spec, PrefixSpec):
                    arguments.setdefault("slots", spec.config["num_virtual_tokens"])
                return ContextEncoder.from_model(
                    network, loaded.tokenizer, model=self.name, **arguments
                )
        except TypeError as error:
            raise UsageError(f"encoder_args: {error}") from error
        except ConditionError as error:
            raise UsageError(f"encoder_args: {error}") from error
        raise UsageError(f"encoder is {self.encoder!r}: use 'document' or 'context'")
