"""LoRA as an emission target: pairs A [r, in] and B [out, r] for chosen modules."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hypergen._utils.errors import SpecError, WeightsError
from hypergen.specs.base import WeightSpec
from hypergen.specs.models import (
    base_config,
    check_called,
    describe_base,
    is_conv1d,
    is_linear,
    layer_index,
    match_modules,
)
from hypergen.specs.slot import Slot
from hypergen.specs.weights import Weights


class LoRASpec(WeightSpec):
    """Low-rank updates ΔW = (alpha / r) · B · A of linear and embedding modules.

    Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022,
    arXiv:2106.09685. Slots are named as PEFT names its file entries, without the prefix
    `base_model.model.`. A starts as PEFT starts it (Kaiming uniform: std 1/sqrt(3 in)), B at
    zero, so that the target starts as the unchanged base.

    Args:
        model: The base model (may be on the meta device).
        target_modules: Names, one regular expression or `"all-linear"`; see `match_modules`.
        r: Rank.
        alpha: Numerator of the scaling; `2 * r` when not given.
        rank_pattern: Module path → rank, for modules that differ.
        use_rslora: Scale by alpha / sqrt(r) instead (Kalajdzievski, arXiv:2312.03732).
        task_type: PEFT's task type for the exported file, e.g. `"CAUSAL_LM"`.

    Raises:
        SpecError: Nothing matches, or a matching module is of a type without LoRA here.
    """

    kind: ClassVar[str] = "lora"

    def __init__(
        self,
        model: nn.Module,
        target_modules: str | Sequence[str] = "all-linear",
        r: int = 8,
        alpha: float | None = None,
        *,
        rank_pattern: Mapping[str, int] | None = None,
        use_rslora: bool = False,
        task_type: str | None = None,
    ) -> None:
        rank_pattern = dict(rank_pattern or {})
        if r < 1 or any(rank < 1 for rank in rank_pattern.values()):
            raise SpecError("the rank r of a LoRA must be at least 1")
        slots: list[Slot] = []
        modules: dict[str, dict[str, float | int | str]] = {}
        for path, module in match_modules(model, target_modules):
            rank = rank_pattern.pop(path, r)
            in_features, out_features, kind = _features(path, module)
            slots += _pair(path, kind, in_features, out_features, rank)
            modules[path] = {"r": rank, "type": kind}
        if rank_pattern:
            raise SpecError(
                f"rank_pattern names {sorted(rank_pattern)[0]!r}, which is not targeted: give the "
                "whole path of a targeted module"
            )
        config = {
            "r": r,
            "alpha": float(2 * r if alpha is None else alpha),
            "use_rslora": use_rslora,
            "task_type": task_type,
            "modules": modules,
            "order": list(modules),
            "target_modules": _shortest_targets(model, list(modules)),
            "rank_pattern": _rank_pattern(modules, r),
            "base": base_config(model),
        }
        super().__init__(slots, config)

    @property
    def is_additive(self) -> bool:
        """LoRA adds to the base: B = 0 is the unchanged base."""
        return True

    @property
    def modules(self) -> tuple[str, ...]:
        """Paths of the adapted modules, in the order of the model."""
        # JSON sorts keys and slots are sorted into groups: neither keeps this order.
        return tuple(self.config["order"])

    def rank(self, module: str) -> int:
        """Rank of the update of a module."""
        return int(self.config["modules"][module]["r"])

    def scaling(self, module: str) -> float:
        """Factor of B · A: alpha / r, or alpha / sqrt(r) for rsLoRA, of that module's own r."""
        rank = self.rank(module)
        return self.config["alpha"] / (math.sqrt(rank) if self.config["use_rslora"] else rank)

    def pair_names(self, module: str) -> tuple[str, str]:
        """Slot names of A and B of a module."""
        return pair_names(module, self.config["modules"][module]["type"])

    def pair(self, weights: Weights, module: str) -> tuple[Tensor, Tensor]:
        """A `[B, r, in]` and B `[B, out, r]` of a module."""
        a, b = self.pair_names(module)
        return weights[a], weights[b]

    def delta(self, weights: Weights, module: str) -> Tensor:
        """The update `[B, out, in]` of a module, materialised; for tests and small models."""
        a, b = self.pair(weights, module)
        return self.scaling(module) * (b @ a)


def _shortest_targets(model: nn.Module, paths: list[str]) -> list[str] | str:
    """Sorted leaf names if they select exactly these modules, else whole paths, else a pattern.

    Servers such as vLLM compare leaf names; a set would be written in another order each time.
    Whole paths select too much where one is the end of another module's path.
    """
    for names in (sorted({path.rpartition(".")[2] for path in paths}), sorted(paths)):
        if {path for path, _ in match_modules(model, names)} == set(paths):
            return names
    return "|".join(re.escape(path) for path in sorted(paths))


def _rank_pattern(modules: Mapping[str, Mapping[str, float | int | str]], r: int) -> dict[str, int]:
    """PEFT's `rank_pattern` for the modules whose rank is not `r`.

    PEFT takes a key for a regular expression of the end of a path: it is anchored where another
    adapted module's path ends alike.
    """
    out: dict[str, int] = {}
    for path, module in sorted(modules.items()):
        if module["r"] != r:
            others = [p for p in modules if p != path and re.match(rf"(.*\.)?({path})$", p)]
            out[f"^{re.escape(path)}" if others else path] = int(module["r"])
    return out


def pair_names(module: str, kind: str) -> tuple[str, str]:
    """File entries of A and B; embeddings have their own names without `.weight`."""
    if kind == "embedding":
        return f"{module}.lora_embedding_A", f"{module}.lora_embedding_B"
    return f"{module}.lora_A.weight", f"{module}.lora_B.weight"


def _features(path: str, module: nn.Module) -> tuple[int, int, str]:
    check_called(path, module)
    if is_conv1d(module):
        weight: Tensor = module.weight  # type: ignore[assignment]
        return weight.shape[0], weight.shape[1], "conv1d"
    if isinstance(module, nn.Embedding):
        return module.num_embeddings, module.embedding_dim, "embedding"
    if is_linear(module):
        # Quantised linears keep in_features and out_features, not the shape of the weight.
        return int(module.in_features), int(module.out_features), "linear"  # type: ignore[arg-type]
    raise SpecError(
        f"module {path!r} is a {type(module).__name__}; LoRASpec takes Linear, Conv1D, "
        "Embedding and quantised layers with in_features and out_features: narrow target_modules, "
        "or use PeftSpec"
    )


def _pair(path: str, kind: str, in_features: int, out_features: int, rank: int) -> list[Slot]:
    name_a, name_b = pair_names(path, kind)
    layer = layer_index(path)
    std_a = 1 / math.sqrt(3 * in_features)
    # PEFT starts an embedding's A at zero and B at random; either way the product starts at zero.
    std_b = 1.0 if kind == "embedding" else 0.0
    return [
        Slot(
            name=name_a,
            shape=(rank, in_features),
            role="lora_A",
            module=path,
            layer=layer,
            fan_in=in_features,
            fan_out=rank,
            std=0.0 if kind == "embedding" else std_a,
            scale=std_a,
        ),
        Slot(
            name=name_b,
            shape=(out_features, rank),
            role="lora_B",
            module=path,
            layer=layer,
            fan_in=rank,
            fan_out=out_features,
            std=std_b,
            scale=1 / math.sqrt(3 * rank),
        ),
    ]


def gram(
    a1: Tensor, b1: Tensor, a2: Tensor, b2: Tensor, *, dtype: torch.dtype | None = None
) -> Tensor:
    """Inner product of two low-rank matrices without forming them.

    ⟨B₁A₁, B₂A₂⟩_F = Σ (B₁ᵀB₂) ⊙ (A₁A₂ᵀ), in O((in + out) r²) instead of O(in · out · r).

    Args:
        a1: `[..., r1, in]`.
        b1: `[..., out, r1]`.
        a2: `[..., r2, in]`.
        b2: `[..., out, r2]`.
        dtype: Dtype of the products; that of the inputs when not given.

    Returns:
        `[...]`.
    """
    if dtype is not None:
        a1, b1, a2, b2 = (x.to(dtype) for x in (a1, b1, a2, b2))
    return ((b1.mT @ b2) * (a1 @ a2.mT)).sum((-2, -1))


def concatenate_ranks(
    adapters: Sequence[Weights], coefficients: Sequence[float] | None = None
) -> Weights:
    """The exact sum Σ c_i · ΔW_i of LoRAs, as one LoRA of rank Σ r_i.

    Args:
        adapters: LoRA weights of one base and one set of modules; ranks and alphas may differ.
            All have the same batch size.
        coefficients: One factor for each adapter, 1 when not given; negative ones subtract.

    Raises:
        WeightsError: Not LoRA, another base, or other modules; names the first module.
    """
    coefficients = [1.0] * len(adapters) if coefficients is None else list(coefficients)
    if not adapters or len(coefficients) != len(adapters):
        raise WeightsError(f"{len(adapters)} adapters need as many coefficients")
    specs = [w.spec for w in adapters]
    for spec in specs:
        if not isinstance(spec, LoRASpec):
            raise WeightsError(f"{type(spec).__name__} is not LoRA: only LoRAs can be concatenated")
    loras = [spec for spec in specs if isinstance(spec, LoRASpec)]
    first = loras[0]
    for spec in loras[1:]:
        if spec.modules != first.modules:
            odd = sorted(set(spec.modules) ^ set(first.modules)) or ["(order)"]
            raise WeightsError(f"the adapters target different modules: {odd[0]!r}")
        if spec.config["base"]["fingerprint"] != first.config["base"]["fingerprint"]:
            bases = " and ".join(describe_base(s.config["base"]) for s in (first, spec))
            raise WeightsError(f"the adapters were made for different base models: {bases}")
    pairs = {}
    for path in first.modules:
        own = [spec.pair(w, path) for spec, w in zip(loras, adapters, strict=True)]
        factors = [c * s.scaling(path) for c, s in zip(coefficients, loras, strict=True)]
        pairs[path] = (
            torch.cat([a for a, _ in own], dim=-2),
            torch.cat([f * b for f, (_, b) in zip(factors, own, strict=True)], -1),
        )
    return from_updates(first.config, pairs)


def from_updates(config: Mapping[str, Any], pairs: Mapping[str, tuple[Tensor, Tensor]]) -> Weights:
    """LoRA weights whose updates are exactly B · A, of whatever ranks.

    Args:
        config: Of a `LoRASpec` of the same base and modules: `base`, `task_type`, `order`,
            `target_modules`, and each module's `type` in `modules`.
        pairs: Module path → A `[B, r, in]` and B `[B, out, r]`.
    """
    slots: list[Slot] = []
    tensors: dict[str, Tensor] = {}
    modules: dict[str, dict[str, float | int | str]] = {}
    for path in config["order"]:
        kind, (a, b) = config["modules"][path]["type"], pairs[path]
        rank = a.shape[-2]
        slots += _pair(path, kind, a.shape[-1], b.shape[-2], rank)
        modules[path] = {"r": rank, "type": kind}
        tensors.update(zip(pair_names(path, kind), (a, b), strict=True))
    top = max(int(m["r"]) for m in modules.values())
    # The scaling is 1: alpha is stored so that alpha / r is.
    own = {
        **config,
        "r": top,
        "alpha": float(top),
        "use_rslora": False,
        "modules": modules,
        "rank_pattern": _rank_pattern(modules, top),
    }
    spec = LoRASpec.__new__(LoRASpec)
    WeightSpec.__init__(spec, slots, own)
    for path in spec.modules:  # alpha / r is 1 only where r is the largest rank
        name_b = spec.pair_names(path)[1]
        tensors[name_b] = tensors[name_b] / spec.scaling(path)
    return spec.from_named(tensors)
