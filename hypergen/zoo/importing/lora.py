"""LoRA adapters of one base and one set of modules, whatever their ranks and scalings."""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from hypergen.specs import LoRASpec, WeightSpec
from hypergen.zoo.importing.adapters import PeftCheckpoint, file_tensors, read_peft, short_name
from hypergen.zoo.importing.checkpoint import Checkpoint, Facts
from hypergen.zoo.importing.padding import pad_pair
from hypergen.zoo.importing.report import SkipFile
from hypergen.zoo.importing.skeleton import Pair, is_module_path, natural, shared, skeleton
from hypergen.zoo.importing.sources import Found
from hypergen.zoo.importing.tensors import digest, layout_of, widest
from hypergen.zoo.store.records import Architecture
from hypergen.zoo.store.shards import file_hash

_ENTRY = re.compile(r"(?P<module>.+)\.lora_(?:(?P<part>[AB])\.weight|embedding_(?P<table>[AB]))")
# Settings that a padded pair keeps, or that only concern training. Any other one that is set makes
# the adapter more than pairs A, B: it is taken as it stands.
_PLAIN = frozenset(
    """
    alpha_pattern auto_mapping base_model_name_or_path bias corda_config eva_config exclude_modules
    fan_in_fan_out inference_mode init_lora_weights layers_pattern layers_to_transform loftq_config
    lora_alpha lora_dropout lora_ga_config megatron_core peft_type peft_version qalora_group_size r
    rank_pattern revision runtime_config target_modules task_type use_rslora
    """.split()  # noqa: SIM905
)
_RECORDED = ("r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "lora_dropout")


@dataclass(frozen=True)
class LoRACheckpoint(Checkpoint):
    """Pairs A `[r, in]`, B `[out, r]` and their scalings.

    Attributes:
        pairs: Module and its pair, in the order of the model as far as names tell it.
        task_type: PEFT's task type.
        targets: Module names that select exactly these modules, when the adapter lists them.
        exact: Whether B times its scaling is exact in the file's own dtype.
    """

    pairs: tuple[tuple[str, Pair], ...]
    task_type: str | None
    targets: tuple[str, ...] | None
    exact: bool

    @property
    def group(self) -> Hashable:
        """Base model, task type, and modules with their sizes, not their ranks."""
        return self.facts.parent, self.task_type, self._sizes

    @property
    def _sizes(self) -> frozenset[tuple[str, str, int, int]]:
        return frozenset((path, pair.kind, pair.inputs, pair.outputs) for path, pair in self.pairs)

    @property
    def key(self) -> str:
        """Method and base model."""
        return f"lora-{short_name(self.facts.parent)}"

    @property
    def ranks(self) -> dict[str, int] | None:
        """True rank of each module."""
        return {path: pair.rank for path, pair in self.pairs}

    @property
    def meaning(self) -> str:
        """Base model and scalings: equal numbers of another scaling are another adapter."""
        return repr((self.facts.parent, [(path, pair.scaling) for path, pair in self.pairs]))

    @property
    def dtype(self) -> str:
        """Smallest dtype that holds every A, and every B times its scaling."""
        own = widest(*(dtype for _, _, dtype in self.layout))
        return own if self.exact else widest(own, "float32")

    @classmethod
    def architecture(cls, members: Sequence[LoRACheckpoint]) -> Architecture:
        """One rank for all modules, the largest one, and a scaling of 1."""
        first = members[0]
        rank = max(pair.rank for member in members for _, pair in member.pairs)
        model = skeleton({path: pair for m in members for path, pair in m.pairs})
        paths = [path for path, _ in first.pairs]
        # A pattern: a list of names would also select what merely ends alike.
        exact = "|".join(map(re.escape, sorted(paths)))
        data = LoRASpec(model, exact, r=rank, alpha=rank, task_type=first.task_type).to_dict()
        dtype = widest(*sorted({member.dtype for member in members}))
        listed = next((m.targets for m in members if m.targets is not None), None)
        base = first.facts.parent or None
        data["config"] |= {
            "base": {"class": "unknown", "name": base, "fingerprint": None},
            "order": paths,
            # Without the model only a pattern of whole paths is sure to select no other module.
            "target_modules": list(listed) if listed else exact,
        }
        data["slots"] = [{**slot, "dtype": dtype} for slot in data["slots"]]
        config = {"class": "PeftModel", "peft_type": "LORA", "base_model_name_or_path": base}
        return Architecture(WeightSpec.from_dict(data), config)

    def fits(self, architecture: Architecture) -> bool:
        """Same base and modules, ranks and dtype no larger."""
        spec = architecture.spec
        if not isinstance(spec, LoRASpec) or spec.config["base"]["name"] != (
            self.facts.parent or None
        ):
            return False
        sizes = frozenset(
            (
                path,
                spec.config["modules"][path]["type"],
                spec[spec.pair_names(path)[0]].shape[1],
                spec[spec.pair_names(path)[1]].shape[0],
            )
            for path in spec.modules
        )
        # A scaling other than 1 divides B: that is exact in wide dtypes only.
        unit = all(spec.scaling(path) == 1 for path in spec.modules)
        needed = self.dtype if unit else widest(self.dtype, "float32")
        return (
            sizes == self._sizes
            and spec.config["task_type"] == self.task_type
            and all(pair.rank <= spec.rank(path) for path, pair in self.pairs)
            and all(widest(slot.dtype, needed) == slot.dtype for slot in spec)
        )

    def read(self) -> dict[str, Tensor]:
        """Reads the file again."""
        return file_tensors(self.found)[0]

    def shaped(self, values: dict[str, Tensor], spec: WeightSpec) -> dict[str, Tensor]:
        """Pads every pair to the spec's rank; its scaling goes into B."""
        assert isinstance(spec, LoRASpec)
        out: dict[str, Tensor] = {}
        for path, pair in self.pairs:
            a, b = spec.pair_names(path)
            factor = pair.scaling / spec.scaling(path)
            out[a], out[b] = pad_pair(values[a], values[b], spec.rank(path), factor)
        return out


def read_adapter(found: Found, config: dict[str, Any]) -> LoRACheckpoint | PeftCheckpoint:
    """Reads an adapter for the first time.

    Args:
        found: The adapter.
        config: Its `adapter_config.json`.

    Raises:
        SkipFile: It cannot be taken.
    """
    if config["peft_type"] != "LORA" or any(v for k, v in config.items() if k not in _PLAIN):
        return read_peft(found, config)
    tensors, left_out = file_tensors(found)
    entries = {name: _ENTRY.fullmatch(name) for name in tensors}
    if not all(match and tensors[name].dim() == 2 for name, match in entries.items()):
        return read_peft(found, config)  # biases, convolutions, whole modules
    halves: dict[str, dict[str, Tensor]] = {}
    embeddings: set[str] = set()
    for name, match in entries.items():
        assert match is not None
        halves.setdefault(match["module"], {})[match["part"] or match["table"]] = tensors[name]
        if match["table"]:
            embeddings.add(match["module"])
    for path in halves:
        if not is_module_path(path):
            raise SkipFile(f"{path!r} cannot be the path of a module")
    pairs = shared(
        tuple(
            (path, _pair(path, halves[path], path in embeddings, config))
            for path in sorted(halves, key=natural)
        )
    )
    exact = all(
        _is_exact(halves[path]["B"], pair.scaling) for path, pair in pairs if pair.scaling != 1
    )
    settings = {key: config[key] for key in _RECORDED if config.get(key) not in (None, {})}
    base, task_type = config.get("base_model_name_or_path") or "", config.get("task_type")
    checkpoint = LoRACheckpoint(
        found=found,
        sha256=file_hash(found.file),
        digest="",
        layout=layout_of(tensors),
        left_out=tuple(left_out),
        facts=Facts(parent=base, hyperparameters=settings, metadata={"peft_type": "LORA"}),
        pairs=pairs,
        task_type=task_type if isinstance(task_type, str) else None,
        targets=_listed_targets(config, [path for path, _ in pairs]),
        exact=exact,
    )
    return replace(checkpoint, digest=digest(tensors, checkpoint.meaning))


def _pair(path: str, half: Mapping[str, Tensor], embedding: bool, config: dict[str, Any]) -> Pair:
    if set(half) != {"A", "B"}:
        raise SkipFile(f"module {path!r} has only one of A and B")
    (rank, inputs), (outputs, rank_b) = half["A"].shape, half["B"].shape
    if rank != rank_b:
        raise SkipFile(f"module {path!r} has an A of rank {rank} and a B of rank {rank_b}")
    announced = _setting(config, "rank_pattern", "r", path)
    if announced != rank:
        raise SkipFile(
            f"module {path!r} has rank {rank} in the file and {announced} in adapter_config.json"
        )
    alpha = float(_setting(config, "alpha_pattern", "lora_alpha", path))
    scaling = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    kind = "embedding" if embedding else "conv1d" if config.get("fan_in_fan_out") else "linear"
    return Pair(kind, inputs, outputs, rank, scaling)


def _setting(config: dict[str, Any], pattern: str, default: str, path: str) -> float:
    """A module's own value, by PEFT's rule: a pattern for the end of its path, the first that fits.

    Raises:
        SkipFile: The value is no number, or the pattern could take forever to match.
    """
    value = config.get(default, 8)  # as in LoraConfig, for both
    patterns = config.get(pattern) or {}
    if not isinstance(patterns, dict):
        raise SkipFile(f"adapter_config.json: {pattern} is no object")
    for key, own in patterns.items():
        # The file is foreign, and nested repetitions make Python's matching exponential.
        if re.search(r"\)[*+?{]", key) or len(re.findall(r"[*+{]", key)) > 3 or len(path) > 256:
            raise SkipFile(f"adapter_config.json: the pattern {key[:80]!r} is too involved")
        try:
            if re.match(rf"(.*\.)?({key})$", path):
                value = own
                break
        except re.error as error:
            raise SkipFile(f"adapter_config.json: the pattern {key!r}: {error}") from error
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise SkipFile(f"adapter_config.json: {value!r} is no {default}")
    return value


def _is_exact(b: Tensor, scaling: float) -> bool:
    """Whether B times its scaling, rounded to float32, fits into B's dtype."""
    if b.dtype in (torch.float32, torch.float64):
        return True
    scaled = (b.double() * scaling).float()
    return bool(((scaled.to(b.dtype).float() == scaled) | scaled.isnan()).all())


def _listed_targets(config: dict[str, Any], paths: list[str]) -> tuple[str, ...] | None:
    """The adapter's own list of names, if its rule is nothing but that list and it fits."""
    names = config.get("target_modules")
    narrowed = any(config.get(k) for k in ("exclude_modules", "layers_to_transform"))
    if not isinstance(names, list) or not names or narrowed:
        return None

    def ends(path: str, name: str) -> bool:
        return path == name or path.endswith(f".{name}")

    good = all(any(ends(p, n) for n in names) for p in paths) and all(
        any(ends(p, n) for p in paths) for n in names
    )
    return tuple(names) if good else None
