"""PEFT adapters: LoRAs of any rank as `LoRASpec`, every other method as `PeftSpec`."""

from __future__ import annotations

import json
import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from hypergen._utils.errors import RunError
from hypergen._utils.io import read_json
from hypergen.specs import PeftSpec, Slot, WeightSpec
from hypergen.specs.files import PEFT_CONFIG
from hypergen.specs.models import layer_index
from hypergen.specs.peft import PREFIX
from hypergen.specs.slot import Role
from hypergen.zoo.importing.checkpoint import Checkpoint, Facts, common_layout, same_shapes
from hypergen.zoo.importing.report import SkipFile
from hypergen.zoo.importing.sources import Found
from hypergen.zoo.importing.tensors import digest, floating, layout_of, read_safetensors
from hypergen.zoo.store.records import Architecture
from hypergen.zoo.store.shards import file_hash

# Nothing of these decides what an adapter computes, or they lead PEFT to import other packages. The
# version of PEFT stays: some methods read it, since their formulas have changed.
_DROPPED = ("auto_mapping", "inference_mode", "revision", "runtime_config")
# Starts of LoRA that leave the base's weights alone; the others rewrite them.
_BASE_KEPT = (None, True, False, "gaussian", "eva", "orthogonal", "mica", "lora_ga")
_CHANGES = ("megatron_config", "layer_replication")
# Random projections that PEFT draws again from the key in the configuration.
_REDRAWN = re.compile(r"base_model\.(vera|randlora)_[AB]")


@dataclass(frozen=True)
class PeftCheckpoint(Checkpoint):
    """An adapter of any PEFT method, its tensors as they stand in the file.

    Attributes:
        config: Its `adapter_config.json`, without what only concerns its training.
    """

    config: str  # JSON: hashable, and equal for equal settings

    @property
    def meaning(self) -> str:
        """The configuration."""
        return self.config

    @property
    def group(self) -> Hashable:
        """Configuration, names and shapes."""
        return self.config, tuple((name, shape) for name, shape, _ in self.layout)

    @property
    def key(self) -> str:
        """Method and base model."""
        config = json.loads(self.config)
        method = config["peft_type"].lower()
        return f"{method}-{short_name(self.facts.parent)}"

    @classmethod
    def architecture(cls, members: Sequence[PeftCheckpoint]) -> Architecture:
        """One slot for each tensor of the file."""
        layout, config = common_layout(members), json.loads(members[0].config)
        base = config["base_model_name_or_path"] or None
        without = _bare(members[0])
        bare = [name for name, _, _ in layout if name in without]
        spec = PeftSpec.__new__(PeftSpec)
        WeightSpec.__init__(
            spec,
            [_slot(name, shape, dtype, config) for name, shape, dtype in layout],
            {
                # The base is named once, below: PEFT warns of one that is named otherwise.
                "peft_config": {
                    **config,
                    "inference_mode": True,
                    "base_model_name_or_path": None,
                },
                "seed": 0,
                "bare": bare,
                "base": {"class": "unknown", "name": base, "fingerprint": None},
            },
        )
        return Architecture(spec, {"class": "PeftModel", **config})

    def fits(self, architecture: Architecture) -> bool:
        """Same configuration, names and shapes."""
        own = {"class": "PeftModel", **json.loads(self.config)}
        return (
            architecture.spec.kind == PeftSpec.kind
            and architecture.config == own
            and same_shapes(self.layout, architecture.spec)
        )

    def read(self) -> dict[str, Tensor]:
        """Reads the file again."""
        return file_tensors(self.found)[0]


def file_tensors(found: Found) -> tuple[dict[str, Tensor], list[str]]:
    """Tensors of an adapter, without PEFT's prefix, and what is left out.

    Raises:
        SkipFile: It is damaged, or PEFT would need more than its floating-point tensors.
    """
    raw = read_safetensors(found.file)
    left_out = [f"{name} (drawn again by PEFT)" for name in raw if _REDRAWN.fullmatch(name)]
    tensors, others = floating({n: t for n, t in raw.items() if not _REDRAWN.fullmatch(n)})
    if others:
        raise SkipFile(f"it needs {others[0]}, which is no slot: an export would lack it")
    named = {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items()}
    if len(named) != len(tensors):
        raise SkipFile("it holds a tensor twice, with and without PEFT's prefix")
    # PEFT also writes the base's own embedding where it is adapted: the base has it.
    for name in list(named):
        module = name.removesuffix(".base_layer.weight")
        if module != name and f"{module}.lora_embedding_A" in named:
            del named[name]
            left_out.append(f"{name} (a copy of the base's embedding)")
    return named, left_out


def read_config(found: Found) -> dict[str, Any]:
    """Reads `adapter_config.json`.

    Raises:
        SkipFile: It is malformed, or not of PEFT, or the adapter needs a changed base model.
    """
    try:
        config = read_json(found.config)
        json.dumps(config, allow_nan=False, ensure_ascii=False).encode()
    except (RunError, RecursionError, ValueError) as error:
        reason = str(error).removeprefix(f"{found.config} ")
        raise SkipFile(f"{PEFT_CONFIG} cannot be used: {reason}") from error
    kind = config.get("peft_type") if isinstance(config, dict) else None
    if not isinstance(kind, str) or not re.fullmatch(r"[A-Z][A-Z0-9_]*", kind):
        raise SkipFile(f"{PEFT_CONFIG} names no peft_type: this is no adapter of PEFT")
    saved = config.get("modules_to_save")
    if saved is not None and not isinstance(saved, list):
        raise SkipFile(f"{PEFT_CONFIG}: modules_to_save is no list")
    base = config.get("base_model_name_or_path")
    if base is not None and not isinstance(base, str):
        raise SkipFile(f"{PEFT_CONFIG}: base_model_name_or_path is no text")
    for key in _CHANGES:
        if config.get(key):
            raise SkipFile(f"{PEFT_CONFIG}: {key} changes the base model, which is not supported")
    start = config.get("init_lora_weights")
    if start not in _BASE_KEPT:
        raise SkipFile(
            f"{PEFT_CONFIG}: init_lora_weights={start!r} changes the base model's weights; convert "
            "it with save_pretrained(…, path_initial_model_for_weight_conversion=…)"
        )
    for key, value in config.items():  # PEFT keeps sets, which it writes in any order
        if key in ("target_modules", "exclude_modules") and isinstance(value, list):
            config[key] = sorted(map(str, value))
    return config


def read_peft(found: Found, config: dict[str, Any]) -> PeftCheckpoint:
    """Reads an adapter for the first time, as its tensors stand.

    Raises:
        SkipFile: It cannot be taken.
    """
    tensors, left_out = file_tensors(found)
    kept = {k: v for k, v in config.items() if k not in _DROPPED and "dropout" not in k}
    if "save_projection" in kept:
        kept["save_projection"] = False
    kept["base_model_name_or_path"] = config.get("base_model_name_or_path") or ""
    text = json.dumps(kept, sort_keys=True)
    return PeftCheckpoint(
        found=found,
        sha256=file_hash(found.file),
        digest=digest(tensors, text),
        layout=layout_of(tensors),
        left_out=tuple(left_out),
        facts=Facts(
            parent=kept["base_model_name_or_path"], metadata={"peft_type": config["peft_type"]}
        ),
        config=text,
    )


def short_name(base: str) -> str:
    """The end of a base model's name, fit for an architecture's key."""
    name = base.replace("\\", "/").rstrip("/").rpartition("/")[2]
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-").lower()[:40] or "base"


def _bare(checkpoint: PeftCheckpoint) -> set[str]:
    """Names that stand in the file without PEFT's prefix."""
    from safetensors import safe_open

    with safe_open(checkpoint.found.file, framework="pt") as file:
        return {name for name in file.keys() if not name.startswith(PREFIX)}  # noqa: SIM118


def _slot(name: str, shape: tuple[int, ...], dtype: str, config: dict[str, Any]) -> Slot:
    role: Role = "prefix" if name.startswith("prompt_") else "other"
    return Slot(
        name=name,
        shape=shape,
        role="lora_A" if "lora_A" in name else "lora_B" if "lora_B" in name else role,
        dtype=dtype,
        parameter=live_name(name, config),
        module=name.rpartition(".")[0],
        layer=layer_index(name),
        fan_in=shape[-1] if len(shape) > 1 else None,
        fan_out=shape[0] if shape else None,
        scale=0.05,
    )


def live_name(name: str, config: dict[str, Any]) -> str:
    """The parameter of PEFT's wrapped model that an entry of its file fills.

    PEFT puts the adapter's name, `default`, behind the tensor's own: in front of `.weight` where
    that is a module, at the end where it is a parameter.
    """
    if name == "prompt_embeddings":
        return "prompt_encoder.default.embedding.weight"
    module, _, leaf = name.rpartition(".")
    owner = module.rpartition(".")[2]
    saved = [str(entry) for entry in config.get("modules_to_save") or ()]
    for path in [module, *[module[: m.start()] for m in re.finditer(r"\.", module)]]:
        if any(path == entry or path.endswith(f".{entry}") for entry in saved):
            return f"{PREFIX}{path}.modules_to_save.default{name[len(path) :]}"
    if leaf in ("weight", "bias") and re.match(r"(lora|oft|ln_tuning)_", owner):
        return f"{PREFIX}{module}.default.{leaf}"
    if leaf == "lora_magnitude_vector":
        return f"{PREFIX}{name}.default.weight"
    if leaf in ("weight", "bias"):
        return f"{PREFIX}{name}"  # a bias of the base itself
    return f"{PREFIX}{name}.default"
