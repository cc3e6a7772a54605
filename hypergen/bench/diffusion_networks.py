"""What surrounds a sampler: scoring many networks, overlaps of their mistakes, reading batches."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from hypergen.bench.timing import interleave, row
from hypergen.bench.zoo_read import zoo_and_files
from hypergen.targets.mlp import run_mlp
from hypergen.zoo.networks import MLP

NETWORKS, SAMPLES, OVERLAPS = 200, 360, 300
NETWORK = MLP(64, (32, 32), 10)


def scoring(networks: int, samples: int, runs: int) -> dict[str, Any]:
    """Networks scored in one stacked call, against one after the other."""
    torch.manual_seed(0)
    spec, module = NETWORK.spec(), NETWORK.module().eval()
    weights = spec.from_flat(torch.randn(networks, spec.numel)).named()
    x, labels = torch.randn(samples, 64), torch.randint(10, (samples,))

    @torch.no_grad()
    def stacked() -> Tensor:
        out = run_mlp(module, weights, x.expand(networks, -1, -1))  # type: ignore[arg-type]
        return (out.argmax(-1) == labels).float().mean(1)

    @torch.no_grad()
    def one_by_one() -> Tensor:
        scores = []
        for i in range(networks):
            own = {name: tensor[i] for name, tensor in weights.items()}
            out = functional_call(module, own, (x,))
            scores.append((out.argmax(-1) == labels).float().mean())
        return torch.stack(scores)

    h = [torch.randn(networks, samples, i) for i in (64, 32, 32)]
    w = [torch.randn(networks, o, i) for i, o in ((64, 32), (32, 32), (32, 10))]
    y = [torch.empty(networks, samples, o) for o in (32, 32, 10)]

    def bound() -> None:
        for a, b, out in zip(h, w, y, strict=True):
            torch.bmm(a, b.mT, out=out)

    torch.testing.assert_close(stacked(), one_by_one())
    t = interleave({"ours": stacked, "reference": one_by_one, "bound": bound}, runs=runs)
    label = f"scoring {networks} networks on {samples} samples, against one by one"
    return row(label, t["ours"], t["reference"], t["bound"])


def overlaps(networks: int, samples: int, runs: int) -> dict[str, Any]:
    """Overlap of the wrong predictions of every pair: one product, against a loop over pairs."""
    torch.manual_seed(0)
    wrong = torch.rand(networks, samples) < 0.1

    def product() -> Tensor:
        mistakes = wrong.float()
        both = mistakes @ mistakes.T
        count = mistakes.sum(1)
        return both / (count[:, None] + count - both).clamp(min=1)

    def loop() -> Tensor:
        out = torch.empty(networks, networks)
        for i in range(networks):
            for j in range(networks):
                either = (wrong[i] | wrong[j]).sum().clamp(min=1)
                out[i, j] = (wrong[i] & wrong[j]).sum() / either
        return out

    matrix, into = wrong.float(), torch.empty(networks, networks)
    torch.testing.assert_close(product(), loop())
    ways = {"ours": product, "bound": lambda: torch.mm(matrix, matrix.T, out=into)}
    t = interleave(ways, runs=runs)
    slow = interleave({"loop": loop}, runs=2, warmup=0)
    label = f"overlap of mistakes, {networks} × {networks} networks, against a loop over pairs"
    return row(label, t["ours"], slow["loop"], t["bound"])


def reading(numel: int, batch: int, runs: int) -> dict[str, Any]:
    """A random batch of a mapped zoo, against `torch.load` of a file for each sample."""
    with (
        tempfile.TemporaryDirectory() as temporary,
        zoo_and_files(Path(temporary), numel, 1024, batch) as (zoo, numbers),
    ):
        rows = torch.arange(batch).flip(0)
        out = torch.empty(batch, numel)

        def ours() -> Tensor:
            return zoo.flat(rows)

        def files() -> Tensor:
            paths = (Path(temporary) / f"{i}.pt" for i in rows.tolist())
            return torch.stack([torch.load(path, weights_only=True)["weight"] for path in paths])

        assert torch.equal(ours(), files())
        bound = lambda: out.copy_(numbers[:batch])  # noqa: E731
        t = interleave({"ours": ours, "reference": files, "bound": bound}, runs=runs)
    label = f"reading a batch of {batch} × {numel:,} weights, against torch.load per sample"
    return row(label, t["ours"], t["reference"], t["bound"])


def run(runs: int = 9) -> list[dict[str, Any]]:
    """All three rows."""
    return [
        scoring(NETWORKS, SAMPLES, runs),
        overlaps(OVERLAPS, SAMPLES, runs),
        reading(8192, 16, runs),
    ]
