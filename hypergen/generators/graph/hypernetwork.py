"""Graph hypernetwork: the graph of an architecture in, all of its weights out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hypergen._utils.errors import ConditionError, did_you_mean
from hypergen.conditions import Condition, ConditionEncoder
from hypergen.conditions.graph import ModuleGraph
from hypergen.conditions.graph.batch import GraphBatch
from hypergen.conditions.graph.encoder import GraphEncoder, check_arguments
from hypergen.generators.graph.decoders import MatrixDecoder, VectorDecoder
from hypergen.generators.graph.emission import Place, joined, one_by_one, written
from hypergen.generators.graph.lora import LoRADecoder, module_nodes
from hypergen.generators.graph.low_rank import LowRankDecoder
from hypergen.generators.graph.plan import Plan, make_plan
from hypergen.generators.graph.rules import Architecture, Rule, architecture
from hypergen.generators.graph.saving import SavedModule
from hypergen.generators.graph.tiling import TilingDecoder
from hypergen.specs import LoRASpec, Weights

DECODERS: dict[str, type[LowRankDecoder | TilingDecoder | LoRADecoder]] = {
    "low_rank": LowRankDecoder,
    "tiling": TilingDecoder,
    "lora": LoRADecoder,
}
COPIES = 256  # repetitions of a block that are told apart

Graphs = ModuleGraph | Sequence[ModuleGraph] | GraphBatch


def make_decoder(
    dim: int, options: Mapping[str, Any]
) -> LowRankDecoder | TilingDecoder | LoRADecoder:
    """Builds a decoder.

    Args:
        dim: Width of the nodes' vectors.
        options: `name` (`low_rank`, `tiling` or `lora`) and arguments of its class.

    Raises:
        ConditionError: An unknown name or argument, or a value that cannot be.
    """
    rest = dict(options)
    name = rest.pop("name", "low_rank")
    if name not in DECODERS:
        raise ConditionError(f"no graph decoder {name!r}.{did_you_mean(str(name), DECODERS)}")
    check_arguments(DECODERS[name], rest, f"the graph decoder {name!r}")
    return DECODERS[name](dim, **rest)


class GraphHypernetwork(SavedModule):
    """Architecture graphs → all weights of each architecture, or a LoRA for each.

    With `{"name": "gated"}` and `{"name": "tiling"}` it is GHN-2 (arXiv:2110.13100), with
    `{"name": "transformer"}` GHN-3 (arXiv:2303.04143), with `{"name": "low_rank", "noise": 0}`
    LoGAH (arXiv:2405.16287). The defaults are of our own: a graph transformer, and matrices of low
    rank on fixed orthogonal noise, brought to the size that the layer's initialisation has.

    Args:
        encoder: `name` (`gated` or `transformer`) and arguments of its class.
        decoder: `name` (`low_rank`, `tiling`, or `lora`) and arguments of its class.
        compress: Whether to read each repeated block of a deep network once.
        condition: Class and arguments of a `ConditionEncoder`, as of its `to_dict`, for weights
            that depend on a text (or other condition) beside the architecture.
    """

    def __init__(
        self,
        encoder: Mapping[str, Any] | None = None,
        decoder: Mapping[str, Any] | None = None,
        *,
        compress: bool = False,
        condition: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        encoder = {"name": "transformer", **(encoder or {})}
        decoder = {"name": "low_rank", **(decoder or {})}
        self.config = {
            "encoder": encoder,
            "decoder": decoder,
            "compress": compress,
            "condition": None if condition is None else dict(condition),
        }
        self.provenance = {}
        self.encoder = GraphEncoder(encoder, compress=compress)
        dim = self.encoder.dim
        self.copies = nn.Embedding(COPIES, dim) if compress else None
        self.norm = nn.LayerNorm(dim)
        made = make_decoder(dim, decoder)
        self.adapters = made if isinstance(made, LoRADecoder) else None
        self.matrices = made if isinstance(made, MatrixDecoder) else None
        self.vectors = VectorDecoder(dim, rank=64, table=128) if self.matrices else None
        self.condition: ConditionEncoder | None = None
        self.modulate: nn.Linear | None = None
        if condition is not None:
            self.condition = ConditionEncoder.from_dict({"init_args": {}, **condition})
            self.modulate = nn.Linear(self.condition.dim, 2 * dim)
            nn.init.normal_(self.modulate.weight, std=0.1 / self.condition.dim**0.5)
            nn.init.zeros_(self.modulate.bias)

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return next(self.parameters()).device

    def batch(self, graphs: Graphs) -> GraphBatch:
        """Graphs as the batch that this generator reads; build it once for graphs used again."""
        return self.encoder.batch(graphs)

    def embed(self, graphs: Graphs) -> Tensor:
        """One vector for each architecture, `[B, D]`, for property prediction and search."""
        return self.encoder(self.batch(graphs)).pooled

    def forward(
        self,
        graphs: Graphs,
        *,
        keep: str | Sequence[str] = (),
        seed: int = 0,
        condition: Any = None,
        specs: Sequence[LoRASpec] | LoRASpec | None = None,
    ) -> list[Weights]:
        """Generates the weights of each architecture.

        Args:
            graphs: B graphs.
            keep: Globs over names of parameters that are not generated.
            seed: Seed of the noise.
            condition: B inputs of the condition's encoder (one serves all), or a `Condition`.
            specs: Of a `lora` decoder the adapter of each graph.

        Returns:
            Weights of batch size 1 for each architecture, on one flat buffer each.

        Raises:
            ConditionError: Bad graphs, patterns that match nothing, or a condition or specs
                missing, too many, or not asked for.
        """
        batch = self.batch(graphs)
        given = self._condition(condition, len(batch))
        if self.adapters is not None:
            return self._adapters(batch, specs, given)
        if specs is not None:
            raise ConditionError("specs= is for the decoder 'lora'; this one makes all weights")
        matrices, vectors = self._whole()
        plan = make_plan(batch, [architecture(graph, keep) for graph in batch.graphs])
        x = self._nodes(batch, plan.graph, plan.node, plan.copy, given)
        emit = joined if torch.is_grad_enabled() else written
        flats = emit(x, plan, matrices, vectors, seed)
        return [
            own.spec.from_flat(flat[None])
            for own, flat in zip(plan.architectures, flats, strict=True)
        ]

    @torch.no_grad()
    def each(
        self,
        graph: ModuleGraph,
        rules: Architecture,
        *,
        seed: int = 0,
        condition: Any = None,
        out: Place = lambda rule: None,
    ) -> Iterator[tuple[Rule, Tensor]]:
        """Generates the parameters of one architecture one after the other, in bounded memory.

        Beside the tensor that is handed out, only factors much smaller than the largest are held.

        Args:
            graph: The architecture.
            rules: What to generate of it, as of `architecture`.
            seed: Seed of the noise.
            condition: An input of the condition's encoder, or a `Condition`.
            out: For each parameter where to write it: a contiguous tensor of its shape in this
                generator's dtype and on its device, or None for a new one.

        Yields:
            Each rule and its tensor, sizes by sizes.

        Raises:
            ConditionError: This generator makes adapters, or a condition is missing.
            WeightsError: A parameter comes out as NaN or infinity; names it.
        """
        matrices, vectors = self._whole()
        batch = self.batch(graph)
        plan: Plan = make_plan(batch, [rules])
        given = self._condition(condition, 1)
        x = self._nodes(batch, plan.graph, plan.node, plan.copy, given)
        yield from one_by_one(x, plan, matrices, vectors, seed, out)

    def _whole(self) -> tuple[MatrixDecoder, VectorDecoder]:
        if self.matrices is None or self.vectors is None:
            raise ConditionError(
                "this generator makes LoRA adapters, not whole networks: call it with specs="
            )
        return self.matrices, self.vectors

    def _condition(self, given: Any, count: int) -> Tensor | None:
        """Pooled vectors `[B, D]` of what is given beside the graphs."""
        if self.condition is None:
            if given is not None:
                raise ConditionError("this generator takes no condition beside the architecture")
            return None
        if given is None:
            raise ConditionError(
                f"this generator takes a condition ({self.condition.input_name}) beside the "
                "architecture: pass condition="
            )
        encoded = given if isinstance(given, Condition) else self.condition(given)
        if len(encoded) not in (1, count):
            raise ConditionError(f"{len(encoded)} conditions do not fit {count} architectures")
        return encoded.pooled.to(self.device).expand(count, -1)

    def _nodes(
        self, batch: GraphBatch, graph: Tensor, node: Tensor, copy: Tensor, given: Tensor | None
    ) -> Tensor:
        """Vectors `[P, D]` of nodes.

        Args:
            batch: The graphs.
            graph: `[P]`, number of the graph.
            node: `[P]`, position of the node in it.
            copy: `[P]`, in which repetition of its block it is.
            given: `[B, D]`, pooled conditions.
        """
        x = self.encoder.network(batch)[graph, node]
        if self.copies is not None:
            x = x + self.copies(copy.clamp(max=COPIES - 1))
        x = self.norm(x)
        if given is not None and self.modulate is not None:
            scale, shift = self.modulate(given)[graph].chunk(2, -1)
            x = x * (1 + scale) + shift
        return x

    def _adapters(
        self,
        batch: GraphBatch,
        specs: Sequence[LoRASpec] | LoRASpec | None,
        given: Tensor | None,
    ) -> list[Weights]:
        """A LoRA for each graph."""
        specs = [specs] if isinstance(specs, LoRASpec) else list(specs or ())
        if len(specs) != len(batch):
            raise ConditionError(
                f"{len(batch)} architectures need as many specs=, not {len(specs)}"
            )
        assert self.adapters is not None
        ordered = []
        for number, (graph, spec) in enumerate(zip(batch.graphs, specs, strict=True)):
            reduction = batch.encoded[number].reduction
            nodes = torch.tensor(module_nodes(graph, spec))
            own = torch.full_like(nodes, number)
            ordered.append(torch.stack([own, reduction.place[nodes], reduction.copy[nodes]]))
        graph, node, copy = torch.cat(ordered, 1).to(self.device)
        x = self._nodes(batch, graph, node, copy, given)
        rows = x.split([part.shape[1] for part in ordered])
        return [
            spec.from_flat(self.adapters(own, spec)[None])
            for own, spec in zip(rows, specs, strict=True)
        ]


def parameters_of(weights: Weights) -> dict[str, Tensor]:
    """Weights of one architecture as `torch.func.functional_call` takes them.

    Returns:
        Name → tensor `[*shape]`; tied parameters under every name.
    """
    named = weights.row()
    for slot in weights.spec:
        named.update(dict.fromkeys(slot.ties, named[slot.name]))
    return named
