"""Graph hypernetwork: the graph of an architecture in, all of its weights out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hypergen._utils.errors import ConditionError, RunError, did_you_mean
from hypergen._utils.io import load_safetensors, read_json
from hypergen.conditions.graph import ModuleGraph
from hypergen.conditions.graph.batch import GraphBatch
from hypergen.conditions.graph.encoder import GraphEncoder, check_arguments
from hypergen.generators.graph.decoders import Made, MatrixDecoder, VectorDecoder, check_finite
from hypergen.generators.graph.low_rank import LowRankDecoder
from hypergen.generators.graph.plan import Plan, make_plan
from hypergen.generators.graph.rules import Architecture, Rule, architecture
from hypergen.generators.graph.tiling import TilingDecoder
from hypergen.generators.storage import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    download,
    load_strict,
    save_generator,
)
from hypergen.specs import Weights

DECODERS: dict[str, type[LowRankDecoder | TilingDecoder]] = {
    "low_rank": LowRankDecoder,
    "tiling": TilingDecoder,
}
FORMAT_VERSION = 1
FACTORS = 1 << 25  # most numbers that the factors of parameters made together have
COPIES = 256  # repetitions of a block that are told apart


def make_decoder(dim: int, options: Mapping[str, Any]) -> LowRankDecoder | TilingDecoder:
    """Builds a decoder.

    Args:
        dim: Width of the nodes' vectors.
        options: `name` (`low_rank` or `tiling`) and arguments of its class.

    Raises:
        ConditionError: An unknown name or argument, or a value that cannot be.
    """
    rest = dict(options)
    name = rest.pop("name", "low_rank")
    if name not in DECODERS:
        raise ConditionError(f"no graph decoder {name!r}.{did_you_mean(str(name), DECODERS)}")
    check_arguments(DECODERS[name], rest, f"the graph decoder {name!r}")
    return DECODERS[name](dim, **rest)


class GraphHypernetwork(nn.Module):
    """Architecture graphs → all weights of each architecture.

    Args:
        encoder: `name` (`gated` or `transformer`) and arguments of its class.
        decoder: `name` (`low_rank` or `tiling`) and arguments of its class.
        compress: Whether to read each repeated block of a deep network once.
    """

    def __init__(
        self,
        encoder: Mapping[str, Any] | None = None,
        decoder: Mapping[str, Any] | None = None,
        *,
        compress: bool = False,
    ) -> None:
        super().__init__()
        encoder = {"name": "transformer", **(encoder or {})}
        decoder = {"name": "low_rank", **(decoder or {})}
        self.config: dict[str, Any] = {"encoder": encoder, "decoder": decoder, "compress": compress}
        self.provenance: dict[str, Any] = {}
        self.encoder = GraphEncoder(encoder, compress=compress)
        dim = self.encoder.dim
        self.copies = nn.Embedding(COPIES, dim) if compress else None
        self.norm = nn.LayerNorm(dim)
        self.matrices: MatrixDecoder = make_decoder(dim, decoder)
        self.vectors = VectorDecoder(dim, rank=32, table=128)

    def batch(self, graphs: ModuleGraph | Sequence[ModuleGraph] | GraphBatch) -> GraphBatch:
        """Graphs as the batch that this generator reads; build it once for graphs used again."""
        return self.encoder.batch(graphs)

    def embed(self, graphs: ModuleGraph | Sequence[ModuleGraph] | GraphBatch) -> Tensor:
        """One vector for each architecture, `[B, D]`."""
        return self.encoder(self.batch(graphs)).pooled

    def forward(
        self,
        graphs: ModuleGraph | Sequence[ModuleGraph] | GraphBatch,
        *,
        keep: str | Sequence[str] = (),
        seed: int = 0,
    ) -> list[Weights]:
        """Generates all weights of each architecture.

        Args:
            graphs: B graphs.
            keep: Globs over names of parameters that are not generated.
            seed: Seed of the noise.

        Returns:
            Weights of batch size 1 for each architecture, on one flat buffer each.
        """
        batch = self.batch(graphs)
        plan = make_plan(batch, [architecture(graph, keep) for graph in batch.graphs])
        x = self.nodes(batch, plan)
        if torch.is_grad_enabled():
            flats = self._joined(x, plan, seed)
        else:
            flats = self._written(x, plan, seed)
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
        out: Callable[[Rule], Tensor | None] = lambda rule: None,
    ) -> Iterator[tuple[Rule, Tensor]]:
        """Generates the parameters of one architecture one after the other, in bounded memory.

        Beside the tensor that is handed out, only factors much smaller than the largest are held.

        Args:
            graph: The architecture.
            rules: What to generate of it, as of `architecture`.
            seed: Seed of the noise.
            out: For each parameter where to write it: a contiguous tensor of its shape in this
                generator's dtype and on its device, or None for a new one.

        Yields:
            Each rule and its tensor, sizes by sizes.

        Raises:
            WeightsError: A parameter comes out as NaN or infinity; names it.
        """
        batch = self.batch(graph)
        plan = make_plan(batch, [rules])
        x = self.nodes(batch, plan)
        for group, values in zip(
            plan.vectors, self.vectors(x[plan.matrix_count :], plan), strict=True
        ):
            check_finite(values, group)
            for rule, value in zip(group.rules, values, strict=True):
                place = out(rule)
                shaped = value.view(rule.slot.shape)
                yield rule, shaped if place is None else place.copy_(shaped)
        for group in plan.matrices:
            width = group.columns * group.positions
            step = max(1, FACTORS // (self.matrices.factor * width))
            for start in range(0, len(group), step):
                part = group[start : start + step]
                made = self.matrices.prepare(x[part.span], part)
                self.matrices.check(made, part)
                for i, rule in enumerate(part.rules):
                    place = out(rule)
                    if place is None:
                        place = x.new_empty(rule.slot.shape)
                    view = place.view(1, group.rows, width)
                    self.matrices.emit(made, part, slice(i, i + 1), seed, view)
                    yield rule, place

    def nodes(self, batch: GraphBatch, plan: Plan) -> Tensor:
        """`[P, D]`, the vector of each parameter of a plan."""
        x = self.encoder.network(batch)[plan.graph, plan.node]
        if self.copies is not None:
            x = x + self.copies(plan.copy.clamp(max=COPIES - 1))
        out: Tensor = self.norm(x)
        return out

    def prepare(self, x: Tensor, plan: Plan) -> list[Made]:
        """What the matrices of each group are made of."""
        return [self.matrices.prepare(x[group.span], group) for group in plan.matrices]

    def _joined(self, x: Tensor, plan: Plan, seed: int) -> list[Tensor]:
        """The flat buffers, differentiably."""
        made = self.prepare(x, plan)
        parts = [
            self.matrices.emit(own, group, slice(None), seed, None)
            for own, group in zip(made, plan.matrices, strict=True)
        ]
        parts += self.vectors(x[plan.matrix_count :], plan)
        # Each group is split once: its gradient is one concatenation.
        cuts: list[list[int]] = [[] for _ in plan.groups]
        for pieces in plan.pieces:
            for piece in pieces:
                cuts[piece.group].append(piece.rows[1] - piece.rows[0])
        split = [iter(part.split(own)) for part, own in zip(parts, cuts, strict=True)]
        return [
            torch.cat([next(split[piece.group]).reshape(-1) for piece in pieces])
            for pieces in plan.pieces
        ]

    def _written(self, x: Tensor, plan: Plan, seed: int) -> list[Tensor]:
        """The flat buffers, each number written where it belongs."""
        made = self.prepare(x, plan)
        vectors = self.vectors(x[plan.matrix_count :], plan)
        flats = []
        for own, pieces in zip(plan.architectures, plan.pieces, strict=True):
            flat = x.new_empty(own.spec.numel)
            for piece in pieces:
                group, rows = plan.groups[piece.group], slice(*piece.rows)
                count = piece.rows[1] - piece.rows[0]
                width = group.columns * group.positions
                size = count * group.rows * width
                view = flat[piece.offset : piece.offset + size].view(count, group.rows, width)
                if piece.group < len(made):
                    self.matrices.emit(made[piece.group], group, rows, seed, view)
                else:
                    view[..., 0] = vectors[piece.group - len(made)][rows]
            flats.append(flat)
        return flats

    # -- files ---------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Everything but the tensors, JSON-serialisable: class and arguments."""
        return {
            "format_version": FORMAT_VERSION,
            "class": type(self).__name__,
            "init_args": self.config,
            "provenance": self.provenance,
        }

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype | None = None) -> Path:
        """Writes config, tensors and a model card, atomically.

        Args:
            folder: Where to write; a folder of that name is replaced.
            dtype: Store floating-point tensors rounded to this.

        Raises:
            WeightsError: A parameter is NaN or infinite, or becomes infinite in `dtype`.
        """
        return save_generator(folder, self, self.to_dict(), self._card(), dtype)

    def _card(self) -> str:
        count = sum(p.numel() for p in self.parameters())
        license = self.provenance.get("license")
        return "\n".join(
            [
                "---",
                "library_name: hypergen",
                *([f"license: {license}"] if license else []),
                "tags:",
                "- hypergen",
                "- hypernetwork",
                "---",
                "",
                "# GraphHypernetwork",
                "",
                f"Generates all weights of an architecture from its graph, with {count:,} "
                f"parameters (encoder `{self.config['encoder']['name']}`, decoder "
                f"`{self.config['decoder']['name']}`).",
                "",
                *(f"- {key}: {value}" for key, value in sorted(self.provenance.items())),
                "",
                "`hypergen init MODEL --generator FOLDER --out model.safetensors`, or in Python "
                "`hypergen.init_(model, hypergen.load(folder))`.",
                "",
            ]
        )

    @staticmethod
    def from_pretrained(folder: str | Path) -> GraphHypernetwork:
        """Reads what `save_pretrained` wrote; every tensor must be there and fit.

        Args:
            folder: A folder on this machine, or the name of a hub repository.

        Raises:
            RunError: The folder is missing, of another version, or damaged; names the file.
        """
        folder = Path(download(str(folder)))
        path = folder / CONFIG_FILE
        generator = GraphHypernetwork.from_dict(read_json(path), origin=str(path))
        path = folder / WEIGHTS_FILE
        load_strict(generator, load_safetensors(path), str(path))
        return generator.eval()

    @staticmethod
    def from_dict(
        config: Mapping[str, Any], *, origin: str = "the generator's config"
    ) -> GraphHypernetwork:
        """Rebuilds a generator, freshly initialised, from `to_dict`.

        Raises:
            RunError: The config is of another version or class, or damaged.
        """
        try:
            if config["format_version"] != FORMAT_VERSION:
                raise RunError(
                    f"{origin} has format version {config['format_version']}; this hypergen reads "
                    f"{FORMAT_VERSION}"
                )
            if config["class"] != GraphHypernetwork.__name__:
                raise RunError(
                    f"{origin} is of a {config['class']}, not of a GraphHypernetwork: "
                    "hypergen.load reads either"
                )
            generator = GraphHypernetwork(**config["init_args"])
            generator.provenance = dict(config["provenance"])
        except (KeyError, TypeError, ConditionError) as error:
            raise RunError(f"{origin} is damaged: {error}") from error
        return generator


def parameters_of(weights: Weights) -> dict[str, Tensor]:
    """Weights of one architecture as `torch.func.functional_call` takes them.

    Returns:
        Name → tensor `[*shape]`; tied parameters under every name.
    """
    named = {}
    for slot in weights.spec:
        value = weights[slot.name][0]
        named.update(dict.fromkeys((slot.name, *slot.ties), value))
    return named
