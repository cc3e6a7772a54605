"""Methods of fine-tuning by their arguments, as recipes write them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from hypergen._utils.errors import UsageError
from hypergen._utils.language_models import LanguageModel
from hypergen._utils.seeding import stable_seed
from hypergen.specs import LoRASpec, PeftSpec, PrefixSpec, WeightSpec
from hypergen.specs.peft import build_config

TASK_TYPES = {
    "causal": "CAUSAL_LM",
    "seq2seq": "SEQ_2_SEQ_LM",
    "encoder": "FEATURE_EXTRACTION",
}


def is_lora(method: Mapping[str, Any]) -> bool:
    """Whether arguments are those of `LoRASpec`."""
    return "peft_type" not in method and not is_prefix(method)


def is_prefix(method: Mapping[str, Any]) -> bool:
    """Whether arguments are those of `PrefixSpec`."""
    return "peft_type" not in method and "num_virtual_tokens" in method


def method_spec(
    language_model: LanguageModel, method: Mapping[str, Any], seed: int = 0
) -> WeightSpec:
    """The spec of a method on a language model.

    Args:
        language_model: The frozen model.
        method: Arguments of `LoRASpec` (`r`, `alpha`, `target_modules`, …); with the key
            `num_virtual_tokens`, of `PrefixSpec`; with the key `peft_type`, of any method of PEFT.
        seed: Seed of what PEFT draws and never trains.

    Raises:
        UsageError: LoRA, prefix or PEFT does not take the arguments.
    """
    arguments = {"task_type": TASK_TYPES[language_model.kind], **method}
    for applies, spec, name in (
        (is_lora(method), LoRASpec, "LoRA"),
        (is_prefix(method), PrefixSpec, "a prefix"),
    ):
        if applies:
            try:
                return spec(language_model.model, **arguments)
            except TypeError as error:
                raise UsageError(f"method: {name} does not take {dict(method)}: {error}") from error
    try:
        with warnings.catch_warnings():
            # PEFT leaves out what it does not know: a misspelt setting would change the method.
            warnings.filterwarnings("error", message="Unexpected keyword arguments")
            config = build_config(arguments)
    except UserWarning as error:
        unknown = str(error).partition(" for class")[0]
        raise UsageError(f"method: PEFT does not take {dict(method)}: {unknown}") from error
    except (TypeError, KeyError, ValueError) as error:
        raise UsageError(f"method: PEFT refuses {dict(method)}: {error}") from error
    return PeftSpec(language_model.model, config, stable_seed(seed) % 2**31)
