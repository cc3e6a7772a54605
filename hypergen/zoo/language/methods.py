"""Methods of fine-tuning by their arguments, as recipes write them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from hypergen._utils.errors import UsageError
from hypergen._utils.language_models import LanguageModel
from hypergen._utils.seeding import stable_seed
from hypergen.specs import LoRASpec, PeftSpec, WeightSpec
from hypergen.specs.peft import build_config

TASK_TYPES = {
    "causal": "CAUSAL_LM",
    "seq2seq": "SEQ_2_SEQ_LM",
    "encoder": "FEATURE_EXTRACTION",
}


def is_lora(method: Mapping[str, Any]) -> bool:
    """Whether arguments are those of `LoRASpec`, and not, with `peft_type`, of PEFT."""
    return "peft_type" not in method


def method_spec(
    language_model: LanguageModel, method: Mapping[str, Any], seed: int = 0
) -> WeightSpec:
    """The spec of a method on a language model.

    Args:
        language_model: The frozen model.
        method: Arguments of `LoRASpec` (`r`, `alpha`, `target_modules`, …), or, with the key
            `peft_type`, of any method of PEFT.
        seed: Seed of what PEFT draws and never trains.

    Raises:
        UsageError: LoRA or PEFT does not take the arguments.
    """
    arguments = {"task_type": TASK_TYPES[language_model.kind], **method}
    if is_lora(method):
        try:
            return LoRASpec(language_model.model, **arguments)
        except TypeError as error:
            raise UsageError(f"method: LoRA does not take {dict(method)}: {error}") from error
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
