"""A document, added up chunk by chunk into fast weights, as a LoRA."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hypergen._utils.errors import ConditionError, SpecError
from hypergen._utils.progress import progress as bar
from hypergen.conditions import Condition, ConditionEncoder, DocumentEncoder
from hypergen.generators.base import Generator
from hypergen.generators.fast_weights.document_state import DocumentState
from hypergen.generators.fast_weights.family import (
    FastWeights,
    Keys,
    Normalization,
    Options,
    prefix_sums,
)
from hypergen.specs import LoRASpec, Weights, WeightSpec


class GenerativeAdapter(Generator):
    """Outer products of what a document's tokens look like, summed and normalised, as a LoRA.

    Chen et al., "Generative Adapter: Contextualizing Language Models in Parameters with A Single
    Forward Pass", 2024, arXiv:2411.05877. For each adapted module, with h the reading of a token,
    k = A2 h, v = A3 h and S = Σ k vᵀ over the document; the update is ΔW = (alpha / r) B N(S)ᵀ A1
    with N the polar factor. S of a longer document is a sum, so documents stream in constant
    memory (`read`, `DocumentState`), and the adapters after every chunk come of one cumulative sum
    (`prefix_weights`).

    Other than there, nothing is random: N is exact instead of a sketch. A = N(S)ᵀ A1 and B are
    emitted at the spec's own rank r. Ours besides: keys in the space of the queries
    (`keys="shared"`: the update maps what a module saw to what goes with it), values of the next
    token (`shift`), ridge regression, and decay.

    Cost of a token and module: 2 h (r1 + r_v) operations for key and value and 2 r1 r_v for the
    sum; of an adapter about 10 r_v³ + 2 r r1 d_in operations a module. All modules of one shape
    are one batched product.

    Args:
        spec: A `LoRASpec`.
        encoder: A `DocumentEncoder` that reads for all modules of the spec. Any other encoder
            gives every module the whole token, and counts as one chunk.
        state_rank: r1, width of keys and queries; at least the rank of every module.
        value_rank: r_v, width of the values; that of the module's LoRA when not given. More are
            truncated to the r leading directions when weights are emitted.
        keys: `"separate"`: from a matrix of their own. `"shared"`: from A1, applied to the
            module's own inputs (`DocumentEncoder(read="module")`).
        shift: Tokens by which the value is read later than the key (0 or 1), within a chunk.
        normalization: `"polar"`; `"ridge"`: (C + λI)⁻¹ S with C = Σ k kᵀ, the regression of values
            on keys; `"frobenius"`: S over its norm, times √r; `"none"`.
        decay: Factor of all earlier chunks' sums at each chunk, in (0, 1].
        epsilon: See `polar_factor`.
        ridge: λ of the ridge regression, in units of the mean eigenvalue of C.

    Raises:
        SpecError: The spec is not LoRA, or an option is out of range or does not fit.
        ConditionError: The encoder does not read for a module; names it.
    """

    def __init__(
        self,
        spec: WeightSpec,
        encoder: ConditionEncoder,
        state_rank: int = 64,
        value_rank: int | None = None,
        keys: Keys = "separate",
        shift: int = 0,
        normalization: Normalization = "polar",
        decay: float = 1.0,
        epsilon: float = 1e-6,
        ridge: float = 0.01,
    ) -> None:
        config = {
            "state_rank": state_rank,
            "value_rank": value_rank,
            "keys": keys,
            "shift": shift,
            "normalization": normalization,
            "decay": decay,
            "epsilon": epsilon,
            "ridge": ridge,
        }
        super().__init__(spec, encoder, config)
        if not isinstance(spec, LoRASpec):
            raise SpecError(f"GenerativeAdapter emits LoRA, not {type(spec).__name__}")
        _check(config)
        document = encoder if isinstance(encoder, DocumentEncoder) else None
        if keys == "shared" and (document is None or document.read != "module"):
            raise SpecError(
                "keys='shared' needs a DocumentEncoder with read='module': keys are A1 applied to "
                "each module's own inputs"
            )
        self.chunk_size = None if document is None else document.chunk_size
        # Layers come divided by their root mean square; what modules see does not.
        rms = document is None or document.read != "layer"
        options = Options(state_rank, keys, shift, normalization, decay, epsilon, ridge, rms)
        members: dict[tuple[int, int, int, int], list[str]] = {}
        starts: dict[str, int] = {}
        for path in spec.modules:
            name_a, name_b = spec.pair_names(path)
            starts[path], width = (0, encoder.dim) if document is None else document.place(path)
            sizes = (spec.rank(path), spec[name_a].shape[1], spec[name_b].shape[0], width)
            members.setdefault(sizes, []).append(path)
        self.families = nn.ModuleList()
        for (rank, inputs, outputs, width), paths in members.items():
            values = rank if value_rank is None else value_rank
            if not rank <= min(values, state_rank):
                raise SpecError(
                    f"module {paths[0]!r} has rank {rank}: state_rank ({state_rank}) and "
                    f"value_rank ({values}) must be at least that"
                )
            own = [starts[path] for path in paths]
            self.families.append(FastWeights(rank, values, inputs, outputs, own, width, options))
        self.options = options
        self._sources = [_sources(spec, list(members.values()), g) for g in range(len(spec.groups))]

    def _families(self) -> list[FastWeights]:
        return [family for family in self.families if isinstance(family, FastWeights)]

    # -- tokens → sums → weights -----------------------------------------------------------------

    def forward(self, condition: Condition) -> Weights:
        """The weights after all chunks of each document."""
        return self.emit(self.sums(condition))

    def prefix_weights(self, condition: Condition) -> tuple[Weights, Tensor]:
        """The weights after every chunk, in one pass.

        Args:
            condition: `[B]` documents of up to S chunks.

        Returns:
            Weights of batch size B · S, document by document, and `[B, S]` bool: whether the
            document has that chunk. Rows of chunks that it has not are to be ignored.
        """
        tokens, mask, chunk = self._chunked(condition)
        weight = mask.to(tokens.dtype)
        sums = [
            prefix_sums(family.sums(tokens, weight, chunk, total=False), self.options.decay)
            for family in self._families()
        ]
        valid = mask.unflatten(1, (-1, chunk)).any(-1)
        return self.emit([s.flatten(1, 2) for s in sums]), valid

    def sums(self, condition: Condition) -> list[Tensor]:
        """What each family of modules adds up over all chunks: `[modules, B, r1, columns]`."""
        tokens, mask, chunk = self._chunked(condition)
        weight = mask.to(tokens.dtype)
        if self.options.decay < 1:
            real = mask.unflatten(1, (-1, chunk)).any(-1)
            after = real.flip(1).cumsum(1).flip(1) - 1  # chunks that come after, for real ones
            factor = self.options.decay ** after.clamp(min=0).to(tokens.dtype)
            weight = (weight.unflatten(1, (-1, chunk)) * factor[..., None]).flatten(1)
        return [family.sums(tokens, weight, chunk, total=True) for family in self._families()]

    def emit(self, sums: Sequence[Tensor]) -> Weights:
        """Normalises sums `[modules, N, r1, columns]` of each family into N sets of weights."""
        pairs = [family.factors(s) for family, s in zip(self._families(), sums, strict=True)]
        groups = []
        for side, families, order in self._sources:
            parts = [pairs[f][side] for f in families]
            stacked = parts[0] if len(parts) == 1 else torch.cat(parts)
            if order is not None:
                stacked = stacked[order]
            groups.append(stacked.transpose(0, 1))
        return Weights(self.spec, groups)

    def _chunked(self, condition: Condition) -> tuple[Tensor, Tensor, int]:
        """Tokens and mask of whole chunks, and the length of a chunk."""
        tokens, mask = condition.tokens.to(self._families()[0].value.dtype), condition.mask
        chunk = self.chunk_size or tokens.shape[1]
        missing = -tokens.shape[1] % chunk
        if missing:
            tokens, mask = F.pad(tokens, (0, 0, 0, missing)), F.pad(mask, (0, missing))
        return tokens, mask, chunk

    # -- documents -------------------------------------------------------------------------------

    @property
    def streams(self) -> bool:
        """Whether documents need not be held whole: an expected gain is read off all tokens."""
        return isinstance(self.encoder, DocumentEncoder) and self.gain is None

    def state(self) -> DocumentState:
        """The state of no document, which leaves the base unchanged."""
        return DocumentState(self, [family.empty().detach() for family in self._families()])

    @torch.no_grad()
    def read(
        self,
        source: Any,
        state: DocumentState | None = None,
        progress: bool = True,
        name: str = "the document",
    ) -> DocumentState:
        """Reads one document of any length in memory that does not depend on it.

        Args:
            source: A string, a file opened as text, or an iterable of strings, read as if joined.
            state: What to add the document to; it is changed. A new one when not given.
            progress: Whether to draw a bar, on a terminal.
            name: What messages call the document.

        Returns:
            The state.

        Raises:
            ConditionError: The encoder is no `DocumentEncoder`, or the document is empty or no
                text.
        """
        if not isinstance(self.encoder, DocumentEncoder):
            raise ConditionError(
                f"this generator reads with a {type(self.encoder).__name__}: only a "
                "DocumentEncoder streams documents"
            )
        state = self.state() if state is None else state
        parts = self.encoder.stream(source, name)
        for part in bar(parts, desc="reading", unit="batch") if progress else parts:
            state.add(part)
        return state

    @torch.no_grad()
    def generate(
        self,
        text: str | Sequence[str] | None = None,
        *,
        condition: Condition | None = None,
        n: int = 1,
        seed: int = 0,
        abstain_below: float | None = None,
        **inputs: Any,
    ) -> Weights:
        """As `Generator.generate`; documents are streamed, one after the other.

        Their hidden states are never held together, unless an expected gain is to be read off them.
        """
        alone = text is None and condition is None and set(inputs) == {"document"}
        if not (alone and self.streams) or abstain_below is not None or n < 1:
            return super().generate(
                text, condition=condition, n=n, seed=seed, abstain_below=abstain_below, **inputs
            )
        given = inputs["document"]
        documents = [given] if isinstance(given, str) else list(given)
        if not documents:
            raise ConditionError("no document given: pass at least one")
        for i, document in enumerate(documents):
            if not isinstance(document, str):
                raise ConditionError(f"document {i} is a {type(document).__name__}, not a string")
        states = [self.read(d, name=f"document {i}") for i, d in enumerate(documents)]
        weights = Weights.cat([state.weights() for state in states])
        if n > 1:
            weights = weights[torch.arange(len(states)).repeat_interleave(n)]
        weights.provenance = {
            "generator": type(self).__name__,
            "document": documents,
            **self.provenance,
        }
        return weights.check_finite()


def _check(config: dict[str, Any]) -> None:
    """Checks the options.

    Raises:
        SpecError: One is out of range; names it.
    """
    choices = {
        "keys": ("separate", "shared"),
        "shift": (0, 1),
        "normalization": ("polar", "ridge", "frobenius", "none"),
    }
    for name, allowed in choices.items():
        if config[name] not in allowed:
            words = ", ".join(map(repr, allowed))
            raise SpecError(f"{name} is {config[name]!r}; it can be {words}")
    if config["state_rank"] < 1 or not 0 < config["decay"] <= 1:
        raise SpecError("state_rank must be at least 1, and decay in (0, 1]")
    if not (config["epsilon"] > 0 and config["ridge"] > 0):
        raise SpecError("epsilon and ridge must be above 0")


def _sources(
    spec: LoRASpec, families: list[list[str]], group: int
) -> tuple[int, list[int], list[int] | None]:
    """Where a group of the spec comes from.

    Returns:
        0 for A or 1 for B, the families whose modules are in it, and the order of the group's
        slots among those families' modules, unless it is theirs already.
    """
    slots = spec.slots[spec.groups[group].start : spec.groups[group].stop]
    side = 0 if slots[0].role == "lora_A" else 1
    wanted = [slot.module for slot in slots]
    used = [f for f, paths in enumerate(families) if set(paths) & set(wanted)]
    given = [path for f in used for path in families[f]]
    order = [given.index(path) for path in wanted]
    return side, used, None if order == list(range(len(given))) else order
