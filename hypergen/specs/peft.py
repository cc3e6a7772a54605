"""Any PEFT method as an emission target: its trainable tensors become slots."""

from __future__ import annotations

import copy
import enum
import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hypergen._utils.errors import SpecError
from hypergen.specs.base import WeightSpec
from hypergen.specs.models import base_config, layer_index, model_fingerprint
from hypergen.specs.slot import Role, Slot
from hypergen.specs.weights import Weights

PREFIX = "base_model.model."
_MARKS = 200
# Named starts of LoRA that leave the base's weights alone; PiSSA, OLoRA, LoftQ, … rewrite them.
BASE_KEPT = frozenset(["gaussian", "eva", "orthogonal"])

# Methods that leave the base as it is when their config asks for the stock initialisation.
_IDENTITY_START = frozenset(
    [
        "LORA",
        "ADALORA",
        "IA3",
        "LOHA",
        "LOKR",
        "OFT",
        "BOFT",
        "VERA",
        "FOURIERFT",
        "HRA",
        "LN_TUNING",
        "RANDLORA",
        "BONE",
        "MISS",
        "SHIRA",
        "ROAD",
        "C3A",
        "WAVEFT",
        "DELORA",
        "GRALORA",
    ]
)


class PeftSpec(WeightSpec):
    """Slots read off a model wrapped by PEFT, for whatever method its config names.

    Every trainable tensor of the wrapped model is a slot, under the name that it has in PEFT's
    `adapter_model.safetensors` (without `base_model.model.`), and starts with PEFT's own values.
    The given model is not changed: PEFT wraps a copy of its module tree that shares its tensors.

    Args:
        model: The base model, real (PEFT reads the weights of the base for some methods).
        peft_config: Any `peft.PeftConfig`, e.g. `IA3Config(target_modules=[…])`.
        seed: Seed of the starting values that PEFT draws.

    Raises:
        SpecError: PEFT refuses the model, or a trainable tensor never reaches PEFT's file.
    """

    kind: ClassVar[str] = "peft"
    # Not part of the JSON: generators save these numbers with their own, targets draw them again.
    exact_initial: Tensor | None = None

    def __init__(self, model: nn.Module, peft_config: Any, seed: int = 0) -> None:
        if hasattr(peft_config, "save_projection"):
            # Frozen random projections are regenerated from their key: no need to ship them.
            peft_config = copy.deepcopy(peft_config)
            peft_config.save_projection = False
        wrapped, trainable = wrap(model, peft_config, seed)
        keys = _file_keys(wrapped, trainable)
        # What another seed does not change is computed (zeros, ones, norms of the base's weights).
        _, drawn = wrap(model, peft_config, seed + 1)
        slots = []
        for name, parameter in trainable.items():
            if name not in keys:
                raise SpecError(
                    f"PEFT trains {name!r} but does not save it: this configuration of "
                    f"{peft_type(peft_config)} cannot be exported"
                )
            is_drawn = not torch.equal(drawn[name], parameter)
            slots.append(_slot(name, keys[name], parameter, is_drawn))
        config = {
            "peft_config": config_dict(peft_config),
            "seed": seed,
            # Prompt tables and tensors that modules share stand in the file as they are named.
            "bare": sorted(key for key in keys.values() if not key.startswith(PREFIX)),
            "base": base_config(model),
        }
        super().__init__(slots, config)
        self.remember_initial(trainable)

    def remember_initial(self, trainable: Mapping[str, Tensor]) -> None:
        """Keeps PEFT's starting values, given by live parameter name."""
        self.exact_initial = torch.cat(
            [trainable[slot.parameter].detach().float().flatten().cpu() for slot in self.slots]
        )

    def initial(self, seed: int = 0) -> Tensor:
        """PEFT's own starting values, `[numel]`; drawn by mean and std on a spec without model."""
        exact: Tensor | None = self.exact_initial
        return super().initial(seed) if exact is None else exact.clone()

    @property
    def is_additive(self) -> bool:
        """Whether the method starts as the unchanged base (a property of the PEFT method)."""
        config = self.config["peft_config"]
        kind = config["peft_type"]
        # One key a method: init_lora_weights, init_ia3_weights, init_weights, …
        starts = [v for k, v in config.items() if k.startswith("init_") and k.endswith("weights")]
        gaussian = kind in ("LORA", "ADALORA")  # B is zero, whatever A is drawn from
        return kind in _IDENTITY_START and all(
            start is True or (gaussian and start == "gaussian") for start in starts
        )

    def neutral(self, batch: int = 1) -> Weights:
        """Weights that leave the base model as it is, for abstaining.

        Raises:
            SpecError: The method does not start as the base, or PEFT's starting values are not at
                hand: the spec was read from JSON, and neither a generator nor a target has used it.
        """
        if self.exact_initial is None and self.is_additive:
            raise SpecError(
                "PEFT's starting values are not part of a spec's JSON: make a PeftTarget with this "
                "spec first"
            )
        return super().neutral(batch)


def build_config(data: Mapping[str, Any]) -> Any:
    """A `PeftConfig` from the JSON of a spec, without PEFT's advice on random projections."""
    from peft import PeftConfig

    data = dict(data)
    save = data.pop("save_projection", None)
    config = PeftConfig.from_peft_type(**data)
    if save is not None:
        config.save_projection = save
    config.inference_mode = False
    return config


@contextmanager
def _without_advice() -> Iterator[None]:
    """Silences what PEFT says of correct uses of it while it wraps a model."""
    with warnings.catch_warnings():
        for message in (
            "Unsupported layer type .* encountered",  # LN tuning, of every layer norm
            "`is_gradient_checkpointing` is deprecated",  # PEFT's own call of transformers
            "Failed to load the CUDA extension",  # BOFT does without
            "Setting boft_n_butterfly_factor to 1",
        ):
            warnings.filterwarnings("ignore", message=message)
        yield


def peft_type(config: Any) -> str:
    """PEFT's name of the method."""
    kind = config.peft_type
    return str(kind.value if isinstance(kind, enum.Enum) else kind)


def config_dict(config: Any) -> dict[str, Any]:
    """A PEFT config as JSON: enums by value, sets sorted."""

    def plain(value: Any) -> Any:
        if isinstance(value, enum.Enum):
            return value.value
        if isinstance(value, (set, frozenset)):
            return sorted(value)
        if isinstance(value, dict):
            return {str(k): plain(v) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(v) for v in value]
        return value

    out: dict[str, Any] = json.loads(json.dumps(plain(config.to_dict())))
    return {**out, "inference_mode": True}


def structural_copy(model: nn.Module) -> nn.Module:
    """Copies the tree of modules and shares every parameter and buffer.

    Wrapping the copy leaves the original's modules alone, and costs no memory.
    """
    memo: dict[int, Any] = {id(p): p for p in model.parameters()}
    memo.update({id(b): b for b in model.buffers()})
    return copy.deepcopy(model, memo)


def wrap(
    model: nn.Module, peft_config: Any, seed: int = 0
) -> tuple[nn.Module, dict[str, nn.Parameter]]:
    """PEFT's wrapper around a structural copy of the model, with seeded starting values.

    Returns:
        The wrapped model in evaluation mode, and the parameters that PEFT trains, by name.

    Raises:
        SpecError: PEFT refuses the model or the configuration.
    """
    from peft import get_peft_model

    changes_base = SpecError(
        f"{peft_type(peft_config)} with these settings changes the base's own weights (as PiSSA "
        "and OLoRA do): generate for an unchanged base instead"
    )
    start = getattr(peft_config, "init_lora_weights", None)
    if isinstance(start, str) and start.lower() not in BASE_KEPT:
        raise changes_base
    clone = structural_copy(model)
    before = [(p, p.requires_grad, p.data) for p in model.parameters()]
    fingerprint = model_fingerprint(model)
    with torch.random.fork_rng(devices=[]), _without_advice():
        torch.manual_seed(seed)
        try:
            wrapped: nn.Module = get_peft_model(clone, copy.deepcopy(peft_config))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            reason = " ".join(str(error).split())
            raise SpecError(
                f"PEFT cannot wrap {type(model).__name__} with {peft_type(peft_config)}: {reason}"
            ) from error
    trainable = {n: p for n, p in wrapped.named_parameters() if p.requires_grad}
    replaced = False
    for parameter, requires_grad, data in before:  # what PEFT did to the tensors that it shares
        replaced |= parameter.data_ptr() != data.data_ptr()
        parameter.data = data
        parameter.requires_grad_(requires_grad)
    if replaced or model_fingerprint(model) != fingerprint:
        raise changes_base
    return wrapped.eval(), trainable


def _file_keys(wrapped: nn.Module, trainable: dict[str, nn.Parameter]) -> dict[str, str]:
    """Live parameter name → key in PEFT's file, found by marking each tensor.

    Names differ from method to method (`.default.` in the middle, prompt tables under one common
    name), so each parameter is filled with a number of its own and looked for in the file.
    """
    from peft import get_peft_model_state_dict

    saved = {n: p.detach().clone() for n, p in trainable.items()}
    keys: dict[str, str] = {}
    # The number in two digits, one after the other: half precision holds integers to 256 only.
    marks: dict[str, int] = {}
    try:
        for digit in (_MARKS, 1):
            with torch.no_grad():
                for number, parameter in enumerate(trainable.values(), start=1):
                    parameter.fill_(float(number // digit % _MARKS))
            entries = get_peft_model_state_dict(wrapped, save_embedding_layers=False)
            for key, tensor in entries.items():
                if tensor.is_floating_point() and tensor.numel():
                    marks[key] = marks.get(key, 0) + digit * round(float(tensor.flatten()[0]))
        by_number = {number: key for key, number in marks.items()}
        for number, (name, parameter) in enumerate(trainable.items(), start=1):
            key = by_number.get(number, "")
            if key and entries[key].numel() == parameter.numel():
                keys[name] = key
    finally:
        with torch.no_grad():
            for name, parameter in trainable.items():
                parameter.copy_(saved[name])
    return keys


def _slot(name: str, key: str, parameter: nn.Parameter, is_drawn: bool) -> Slot:
    values = parameter.detach().float()
    std = float(values.std()) if values.numel() > 1 else 0.0
    mean = float(values.mean())
    path = key.removeprefix(PREFIX)
    return Slot(
        name=path,
        shape=tuple(parameter.shape),
        role=_role(path),
        dtype=str(parameter.dtype).removeprefix("torch."),
        parameter=name,
        module=path.rpartition(".")[0],
        layer=layer_index(path),
        fan_in=parameter.shape[-1] if parameter.dim() > 1 else None,
        fan_out=parameter.shape[0],
        mean=mean,
        std=std if is_drawn else 0.0,
        scale=std if std > 1e-8 else 0.05,
    )


def _role(path: str) -> Role:
    if "lora_A" in path:
        return "lora_A"
    if "lora_B" in path:
        return "lora_B"
    return "prefix" if path.startswith("prompt_") else "other"
