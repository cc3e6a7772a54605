"""`hypergen bench graph`: from a network to generated weights in it; encoders of large graphs.

Cost model. Weights: every number is written once, 4 n bytes; the bound fills the network's
parameters with a constant. A low-rank decoder of rank R adds 2 R n operations. Graph transformer on
N nodes: 4 N² D operations of attention a layer; the network on every pair that GHN-3 runs for its
bias costs 2 N² · (2 D · D + D · heads) and 4 N² · 3 D bytes, the table N² lookups.

For orientation, GHN-3-T (random weights, on two threads of the machine it was measured on) builds
ResNet-50's graph in 0.096 s and predicts in 0.038 s, ViT-B/16 in 0.42 and 0.067, GPT-2 in 0.11 and
0.25, DenseNet-201 in 0.45 and 0.14; on one thread ResNet-50 in 0.206 and 0.083, ViT-B/16 in 0.84
and 0.10.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from hypergen._utils.progress import progress
from hypergen.bench.graph_attention import measure, random_graph, transformer
from hypergen.bench.timing import interleave, row
from hypergen.conditions.graph import trace
from hypergen.conditions.graph.batch import GraphBatch
from hypergen.conditions.graph.cache import CACHE
from hypergen.conditions.graph.examples import Residual
from hypergen.generators.graph import GraphHypernetwork, init_, parameters_of

IMAGES, SIZE = 32, 32  # of a training step: how many, and pixels on a side
NETWORKS = ((16, 4), (24, 3), (32, 2), (20, 5))  # widths and blocks
NODES = (250, 500, 1000, 2000)
# Seconds of GHN-3-T on two threads: graph and prediction.
GHN3 = {
    "ResNet-50": (0.096, 0.038),
    "ViT-B/16": (0.42, 0.067),
    "DenseNet-201": (0.448, 0.137),
    "GPT-2": (0.112, 0.254),
}


def _resnet() -> nn.Module:
    import transformers as t

    config: Any = t.ResNetConfig
    return t.ResNetForImageClassification(config(num_labels=1000))


def _vit() -> nn.Module:
    import transformers as t

    config: Any = t.ViTConfig
    return t.ViTForImageClassification(config(num_labels=1000))


def _gpt2(**sizes: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import transformers as t

        return t.GPT2LMHeadModel(t.GPT2Config(**sizes))

    return build


class _Dense(nn.Module):
    """A layer whose output is joined to its input."""

    def __init__(self, inputs: int, growth: int = 32) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(4 * growth)
        self.conv1 = nn.Conv2d(inputs, 4 * growth, 1, bias=False)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, H, W]` → `[B, C + growth, H, W]`."""
        inner = self.conv1(torch.relu(self.norm1(x)))
        return torch.cat([x, self.conv2(torch.relu(self.norm2(inner)))], 1)


def _densenet() -> nn.Module:
    stem = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    layers: list[nn.Module] = [*stem, nn.MaxPool2d(3, 2, 1)]
    width = 64
    for i, count in enumerate((6, 12, 48, 32)):
        for _ in range(count):
            layers.append(_Dense(width))
            width += 32
        layers += [nn.BatchNorm2d(width), nn.ReLU()]
        if i < 3:
            layers += [nn.Conv2d(width, width // 2, 1, bias=False), nn.AvgPool2d(2)]
            width //= 2
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 1000))


MODELS: dict[str, tuple[Callable[[], nn.Module], Any]] = {
    "ResNet-50": (_resnet, None),
    "ViT-B/16": (_vit, None),
    "DenseNet-201": (_densenet, (1, 3, 224, 224)),
    "GPT-2": (_gpt2(), None),
    "GPT-2 medium": (_gpt2(n_embd=1024, n_layer=24, n_head=16), None),
}
GENERATORS: dict[str, dict[str, Any]] = {
    "tiles": {"encoder": {"dim": 64}, "decoder": {"name": "tiling"}},
    "low rank": {"encoder": {"dim": 64}, "decoder": {"name": "low_rank", "noise": 0.0}},
    "low rank and noise": {"encoder": {"dim": 64}, "decoder": {"name": "low_rank"}},
}
KNOWN = ("tiles", "low rank and noise")  # also timed with the graph of an earlier call
LOW = "low rank and noise, bfloat16 products"


@contextmanager
def _bfloat16() -> Iterator[None]:
    """Products of float32 matrices as torch's precision `medium` has them."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def models(runs: int) -> list[dict[str, Any]]:
    """Graph and weights of well-known networks, into their own parameters.

    Each against the network's initialisation by normal numbers, its cheapest usual one.
    """
    rows = []
    for name, (build, example) in progress(MODELS.items(), desc="bench graph", unit="model"):
        model = build().requires_grad_(False)
        parameters = list(model.parameters())

        def usual(own: list[nn.Parameter] = parameters) -> None:
            for parameter in own:
                parameter.normal_(0.0, 0.02)

        def bound(own: list[nn.Parameter] = parameters) -> None:
            for parameter in own:
                parameter.fill_(0.5)

        def graph(own: nn.Module = model, example: Any = example) -> None:
            trace(own, example, cache=False)

        ways: dict[str, Callable[[], object]] = {"usual": usual, "bound": bound, "graph": graph}
        for kind, options in GENERATORS.items():
            torch.manual_seed(0)
            made = GraphHypernetwork(**options).eval()

            def anew(
                own: nn.Module = model, by: GraphHypernetwork = made, example: Any = example
            ) -> None:
                CACHE.clear()
                init_(own, by, example=example)

            def again(
                own: nn.Module = model, by: GraphHypernetwork = made, example: Any = example
            ) -> None:
                init_(own, by, example=example)

            ways[kind] = anew
            if kind == "low rank and noise":
                ways[LOW] = _bfloat16()(anew)
            if kind in KNOWN:
                ways[f"{kind}, known graph"] = again
        t = interleave(ways, runs=runs, warmup=1)
        count = sum(p.numel() for p in parameters) / 1e6
        for kind in ("graph", *GENERATORS, LOW, *(f"{k}, known graph" for k in KNOWN)):
            what = "graph alone" if kind == "graph" else f"graph and weights, {kind}"
            own = row(f"{name} ({count:.1f}M), {what}", t[kind], t["usual"], t["bound"])
            if name in GHN3:
                own["ghn3_two_threads"] = dict(zip(("graph", "predict"), GHN3[name], strict=True))
                if kind in (*GENERATORS, LOW):
                    own["case"] += f" (GHN-3-T: {sum(GHN3[name]) * 1e3:.0f} ms)"
            rows.append(own)
    return rows


def attention(runs: int) -> list[dict[str, Any]]:
    """Time and memory of the graph transformer, against a network on every pair of nodes.

    Raises:
        AssertionError: The two do not compute the same.
    """
    rows = []
    for nodes in progress(NODES, desc="bench graph", unit="size"):
        batch = GraphBatch.of(random_graph(nodes))
        ours, pairs = transformer("table"), transformer("pairs")
        with torch.no_grad():
            torch.testing.assert_close(ours(batch), pairs(batch), rtol=1e-3, atol=1e-4)
            t = interleave(
                {"ours": partial(ours, batch), "pairs": partial(pairs, batch)}, runs=runs, warmup=1
            )
        label = f"graph transformer, {nodes:,} nodes"
        rows.append(row(f"{label}, against a network on every pair", t["ours"], t["pairs"], None))
        base = measure("build", nodes)
        table, whole = (max(measure(way, nodes) - base, 0.1) for way in ("table", "pairs"))
        rows.append(
            {
                "case": f"{label}, peak memory",
                "metric": "MiB",
                "ours": table,
                "reference": whole,
                "ratio": whole / table,
                "bound": None,
            }
        )
    return rows


def _network(width: int, blocks: int) -> nn.Module:
    stem = [nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    body = [Residual(width) for _ in range(blocks)]
    return nn.Sequential(*stem, *body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))


def training(runs: int) -> list[dict[str, Any]]:
    """A step on 32 images of 32 × 32 through 1 and 4 generated networks.

    Against one call of the generator for each network; the bound runs the networks alone.
    """
    rows = []
    x = torch.randn(IMAGES, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    y = torch.arange(IMAGES) % 10
    networks = [_network(width, blocks) for width, blocks in NETWORKS]
    graphs = [trace(network, (1, 3, SIZE, SIZE)) for network in networks]
    torch.manual_seed(0)
    made = GraphHypernetwork(**GENERATORS["low rank and noise"])

    def loss(network: nn.Module, parameters: dict[str, Tensor]) -> Tensor:
        return nn.functional.cross_entropy(functional_call(network, parameters, (x,)), y)

    for count in (1, 4):
        own, batch = networks[:count], made.batch(graphs[:count])
        single = [made.batch(graph) for graph in graphs[:count]]

        def together(own: list[nn.Module] = own, batch: GraphBatch = batch) -> None:
            made.zero_grad(set_to_none=True)
            found = made(batch)
            torch.stack(
                [loss(n, parameters_of(w)) for n, w in zip(own, found, strict=True)]
            ).mean().backward()

        def apart(own: list[nn.Module] = own, single: list[GraphBatch] = single) -> None:
            made.zero_grad(set_to_none=True)
            for network, batch in zip(own, single, strict=True):
                (loss(network, parameters_of(made(batch)[0])) / len(own)).backward()

        def alone(own: list[nn.Module] = own) -> None:
            for network in own:
                network.zero_grad(set_to_none=True)
                nn.functional.cross_entropy(network(x), y).backward()

        t = interleave({"ours": together, "apart": apart, "bound": alone}, runs=runs, warmup=1)
        label = f"training step, {count} networks, against one call each"
        rows.append(row(label, t["ours"], t["apart"], t["bound"]))
    return rows


def run(runs: int = 5) -> dict[str, Any]:
    """Runs every case; see `hypergen bench` for the keys."""
    return {"name": "graph", "rows": [*models(runs), *attention(runs), *training(runs)]}
