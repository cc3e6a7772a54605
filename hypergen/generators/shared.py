"""One adapter for all conditions, and what a generator adds to it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from hypergen._utils.errors import SpecError, WeightsError, did_you_mean
from hypergen.conditions import Condition, ConditionEncoder
from hypergen.generators.base import Generator
from hypergen.generators.multitask import stored_weights
from hypergen.specs import LoRASpec, Weights, WeightSpec
from hypergen.specs.models import describe_base

# sigmoid(±4) = 0.982, 0.018: near the ends, where a gradient still comes through.
_GATE_START = {"open": 4.0, "closed": -4.0}


class SharedPlusDelta(Generator):
    """Shared multi-task weights plus the delta of any other generator.

    weights = shared + g(condition) · delta(condition). The shared part learns what all tasks have
    in common, or is loaded and frozen, so that a generated part that says nothing leaves the
    multi-task adapter instead of the base. It starts as the unchanged base (or, for specs that
    replace weights, as their start). Ours; the strength of one multi-task LoRA as a baseline of
    Text-to-LoRA (arXiv:2506.06105) is what it is made for.

    `combine="add"` adds tensor by tensor, for any spec. For LoRA the update is then
    (B_s + ΔB)(A_s + ΔA), which has products of shared and generated parts. `combine="ranks"`, for
    `LoRASpec` alone, gives each module r - k ranks of the shared adapter and k generated ones, in
    one LoRA of rank r: ΔW = s · (B_s A_s + g · B_g A_g), the exact sum of the two updates.

    Args:
        spec: What to emit.
        encoder: Turns raw inputs into a condition; the gate reads its pooled vector.
        generator: Class name of the generator that makes the delta.
        generator_args: Its constructor arguments, without spec and encoder.
        combine: `"add"` or `"ranks"`.
        generated_rank: `"ranks"`: the generated ranks k of every module; half of the smallest rank
            when not given.
        gate: A learned factor in (0, 1) of each condition's delta, starting `"open"` (0.98) or
            `"closed"` (0.02; at 0 nothing would be learned: the delta starts at zero as well);
            no gate when not given.
        delta_dropout: Share of the rows whose delta is left out in training, so that the shared
            part stays a good adapter on its own.
        shared_file: What to start the shared part from: a file of `Weights.save` with one set of
            weights, or the run folder of a `MultiTask`. For `"ranks"` a LoRA of the shared ranks;
            its own alpha is accounted for.
        freeze_shared: Do not train the shared part.
        guidance: What deltas are multiplied by when weights are generated (not in training): above
            1 it moves away from the shared weights, in the direction that the condition asks for,
            as classifier-free guidance does (Ho and Salimans, arXiv:2207.12598).

    Raises:
        SpecError: An option does not fit the spec, or there is no such generator.
        WeightsError: The file's weights do not fit; says how.
    """

    def __init__(
        self,
        spec: WeightSpec,
        encoder: ConditionEncoder,
        generator: str = "TextToLoRA",
        generator_args: dict[str, Any] | None = None,
        combine: Literal["add", "ranks"] = "add",
        generated_rank: int | None = None,
        gate: Literal["open", "closed"] | None = None,
        delta_dropout: float = 0.0,
        shared_file: str | None = None,
        freeze_shared: bool = False,
        guidance: float = 1.0,
    ) -> None:
        config = {
            "generator": generator,
            "generator_args": dict(generator_args or {}),
            "combine": combine,
            "generated_rank": generated_rank,
            "gate": gate,
            "delta_dropout": delta_dropout,
            # What was loaded is saved with the generator: the file is not asked for again.
            "shared_file": None,
            "freeze_shared": freeze_shared,
            "guidance": guidance,
        }
        super().__init__(spec, encoder, config)
        if combine not in ("add", "ranks"):
            raise SpecError(f"combine {combine!r} is neither add nor ranks")
        if gate is not None and gate not in _GATE_START:
            raise SpecError(f"gate {gate!r} is neither open nor closed")
        if not 0 <= delta_dropout < 1:
            raise SpecError(f"delta_dropout must be at least 0 and below 1, not {delta_dropout}")
        self.combine, self.delta_dropout, self.guidance = combine, delta_dropout, guidance
        self.shared_spec: WeightSpec = spec
        delta_spec: WeightSpec = spec
        self._sources: list[list[tuple[int, list[int]]]] = []
        if combine == "ranks":
            self.shared_spec, delta_spec = split_ranks(spec, generated_rank)
            self._sources = [_sources(spec, part) for part in (self.shared_spec, delta_spec)]
        elif generated_rank is not None:
            raise SpecError("generated_rank is an option of combine='ranks'")
        self.delta = _build(generator, delta_spec, encoder, generator_args or {})
        # Another draw for "ranks", so that both parts do not start in the same rows of A.
        start = self.shared_spec.initial(1 if combine == "ranks" else 0)
        self.shared = nn.Parameter(start, requires_grad=not freeze_shared)
        self.register_buffer("start", delta_spec.initial(0))
        self.start: Tensor
        self.gate: nn.Sequential | None = None
        if gate is not None:
            linear = nn.Linear(encoder.dim, 1)
            nn.init.zeros_(linear.weight)
            nn.init.constant_(linear.bias, _GATE_START[gate])
            self.gate = nn.Sequential(nn.LayerNorm(encoder.dim), linear)
        if shared_file is not None:
            self.set_shared(stored_weights(shared_file))

    def gates(self, condition: Condition) -> Tensor:
        """Factor of each row's delta, `[B]`; 1 without a gate."""
        if self.gate is None:
            return condition.pooled.new_ones(len(condition))
        factor: Tensor = self.gate(condition.pooled)[:, 0].sigmoid()
        return factor

    def forward(self, condition: Condition) -> Weights:
        """Generates one set of weights for each row of the condition."""
        return self._join(self.delta(condition), condition)

    def sample(self, condition: Condition, seeds: Sequence[int]) -> Weights:
        """Draws the deltas."""
        return self._join(self.delta.sample(condition, seeds), condition)

    def prepare(self, data: Any) -> None:
        """Hands the training data to the generator of the deltas."""
        self.delta.prepare(data)

    def shared_weights(self, batch: int = 1) -> Weights:
        """The shared part alone: what a condition falls back to whose delta says nothing."""
        nothing = self.delta.spec.from_flat(self.start.expand(batch, -1))
        return self._combine(nothing, self.start.new_zeros(batch))

    def set_shared(self, weights: Weights) -> None:
        """Takes the shared part from one set of weights, e.g. a trained multi-task adapter.

        Raises:
            WeightsError: More than one set, or another spec; says what is expected.
        """
        if len(weights) != 1:
            raise WeightsError(f"the shared part is one set of weights, not {len(weights)}")
        given, own = weights.spec, self.shared_spec
        if self.combine == "add" and given != own:
            raise WeightsError(
                "the shared weights must have the spec that is generated; for a LoRA of other "
                "ranks or alpha use combine='ranks'"
            )
        tensors = {name: tensor.detach() for name, tensor in weights.named().items()}
        if self.combine == "ranks":
            tensors = self._rescaled(given, tensors)
        with torch.no_grad():
            self.shared.copy_(own.pack(tensors)[0])

    def _rescaled(self, given: WeightSpec, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Tensors of another LoRA, with B scaled so that the updates are the same under this spec.

        Raises:
            WeightsError: It is not a LoRA of the shared ranks and of this base.
        """
        own, spec = self.shared_spec, self.spec
        assert isinstance(own, LoRASpec)
        assert isinstance(spec, LoRASpec)
        if not isinstance(given, LoRASpec) or given.modules != own.modules:
            raise WeightsError(
                "the shared weights are not a LoRA of the modules that are generated"
            )
        if given.config["base"]["fingerprint"] != own.config["base"]["fingerprint"]:
            raise WeightsError(
                "the shared weights were made for another base model: "
                f"{describe_base(given.config['base'])}, not {describe_base(own.config['base'])}"
            )
        out = dict(tensors)
        for module in own.modules:
            if given.rank(module) != own.rank(module):
                raise WeightsError(
                    f"the shared weights have rank {given.rank(module)} in module {module!r}; "
                    f"{own.rank(module)} ranks of it are shared here (r less generated_rank)"
                )
            name = own.pair_names(module)[1]
            out[name] = out[name] * (given.scaling(module) / spec.scaling(module))
        return out

    def _join(self, delta: Weights, condition: Condition) -> Weights:
        factor = self.gates(condition)
        if not self.training:
            factor = factor * self.guidance
        if self.training and self.delta_dropout:
            factor = factor * (torch.rand(len(factor), device=factor.device) >= self.delta_dropout)
        return self._combine(delta, factor)

    def _combine(self, delta: Weights, factor: Tensor) -> Weights:
        """Shared part plus `factor` `[B]` times the delta."""
        if self.combine == "add":
            start = self.spec.split(self.start[None])
            shared = self.spec.split(self.shared[None])
            groups = [
                s + _scale(d - zero, factor)
                for s, d, zero in zip(shared, delta.groups, start, strict=True)
            ]
            return Weights(self.spec, groups)
        shared, groups = self.shared_spec.split(self.shared[None]), []
        for group, (s, at_s), (d, at_d) in zip(self.spec.groups, *self._sources, strict=True):
            mine, theirs = _pick(shared[s], at_s), _pick(delta.groups[d], at_d)
            mine = mine.expand(len(theirs), *mine.shape[1:])
            if group.role == "lora_A":
                groups.append(torch.cat([mine, theirs], dim=-2))
            else:
                groups.append(torch.cat([mine, _scale(theirs, factor)], dim=-1))
        return Weights(self.spec, groups)


def split_ranks(spec: WeightSpec, generated: int | None = None) -> tuple[LoRASpec, LoRASpec]:
    """Cuts the ranks of a LoRA in two.

    Args:
        spec: A `LoRASpec`.
        generated: Ranks k of the second part; half of the smallest rank when not given.

    Returns:
        The specs of the first r - k and of the last k ranks of every module.

    Raises:
        SpecError: Not a `LoRASpec`, or a module has no rank left for either part; names it.
    """
    if not isinstance(spec, LoRASpec):
        raise SpecError(f"combine='ranks' needs a LoRASpec, not {type(spec).__name__}: use 'add'")
    ranks = {module: spec.rank(module) for module in spec.modules}
    smallest = min(ranks, key=lambda module: ranks[module])
    k = ranks[smallest] // 2 if generated is None else generated
    if not 0 < k < ranks[smallest]:
        raise SpecError(
            f"module {smallest!r} has rank {ranks[smallest]}, of which {k} cannot be generated and "
            "the rest shared: change generated_rank or r"
        )
    return (
        _with_ranks(spec, {module: rank - k for module, rank in ranks.items()}),
        _with_ranks(spec, dict.fromkeys(ranks, k)),
    )


def _with_ranks(spec: LoRASpec, ranks: Mapping[str, int]) -> LoRASpec:
    """The spec of the same modules with other ranks; only its shapes and starts are used."""
    slots = []
    for slot in spec:
        rank = ranks[slot.module]
        if slot.role == "lora_A":
            slots.append(replace(slot, shape=(rank, slot.shape[1]), fan_out=rank))
        else:
            scale = 1 / math.sqrt(3 * rank)
            slots.append(replace(slot, shape=(slot.shape[0], rank), fan_in=rank, scale=scale))
    modules = {
        path: {**module, "r": ranks[path]} for path, module in spec.config["modules"].items()
    }
    top = max(ranks.values())
    pattern = {path: rank for path, rank in ranks.items() if rank != top}
    out = LoRASpec.__new__(LoRASpec)
    config = {**spec.config, "r": top, "modules": modules, "rank_pattern": pattern}
    WeightSpec.__init__(out, slots, config)
    return out


def _sources(spec: WeightSpec, part: WeightSpec) -> list[tuple[int, list[int]]]:
    """For each group of `spec`, where its slots stand in `part`: group, and positions in it."""
    out = []
    for group in spec.groups:
        places = [part.location[slot.name] for slot in spec.slots[group.start : group.stop]]
        # Slots of one shape have one rank, and so one shape and one group in the part.
        out.append((places[0][0], [position for _, position in places]))
    return out


def _pick(group: Tensor, positions: list[int]) -> Tensor:
    """Slots of a group `[B, n, …]`; all in order without a copy."""
    first, last = positions[0], positions[-1] + 1
    if positions == list(range(first, last)):
        return group[:, first:last]
    return group[:, positions]


def _scale(tensor: Tensor, factor: Tensor) -> Tensor:
    return tensor * factor.view(-1, *[1] * (tensor.dim() - 1))


def _build(
    name: str, spec: WeightSpec, encoder: ConditionEncoder, arguments: Mapping[str, Any]
) -> Generator:
    cls = Generator._registry.get(name)
    if cls is None:
        raise SpecError(f"there is no generator {name!r}.{did_you_mean(name, Generator._registry)}")
    try:
        built = cls(spec, encoder, **arguments)
    except TypeError as error:
        raise SpecError(f"generator_args of {name}: {error}") from error
    # The encoder belongs to the outer generator: registered twice, it would be saved twice.
    del built.encoder
    built.__dict__["encoder"] = encoder
    return built
