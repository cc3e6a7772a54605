"""`hypergen bench core`: generate for many conditions and run the target on many samples.

Cost model, for C conditions, S samples each, a target of n weights (of which m sit in matrices)
and a head with d features: the head's product is 2 C d n operations and reads 4 d n bytes; the
target's products are 2 C S m operations and read 4 C m bytes. The backward pass is twice the
operations, and writes the gradient of the head, 4 d n bytes. Everything else (activations, biases,
losses) is smaller by the width of a layer. The bound below runs exactly these products, and the
small ones of the trunk, into buffers allocated beforehand, and nothing else.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from hypergen._utils.progress import progress
from hypergen.bench.timing import Timing, interleave, row
from hypergen.conditions import Condition, TaskEncoder
from hypergen.generators import MLPGenerator
from hypergen.specs import FullSpec
from hypergen.targets import FunctionalTarget

# Products of the trunk: 8 inputs, 100 features, one residual block twice as wide inside.
TRUNK = ((8, 100), (100, 200), (200, 100))
SIZES = {"784-100-100-10": (784, 100, 100, 10), "64-32-32-10": (64, 32, 32, 10)}


def network(sizes: tuple[int, ...]) -> nn.Sequential:
    """A ReLU network of linear layers."""
    layers: list[nn.Module] = []
    for i, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        layers += [nn.Linear(inputs, outputs)]
        layers += [nn.ReLU()] if i < len(sizes) - 2 else []
    return nn.Sequential(*layers)


def products(
    sizes: tuple[int, ...], conditions: int, samples: int, features: int, backward: bool
) -> Callable[[], None]:
    """The matrix products of trunk, head and target alone, into buffers allocated beforehand."""
    shapes = list(zip(sizes[1:], sizes, strict=False))
    total = sum(o * i + o for o, i in shapes)
    h, head = torch.randn(conditions, features), torch.randn(total, features)
    flat, grad_flat = torch.empty(conditions, total), torch.randn(conditions, total)
    grad_h, grad_head = torch.empty_like(h), torch.empty_like(head)
    trunk = []
    for inn, out in TRUNK:
        x, w = torch.randn(conditions, inn), torch.randn(out, inn)
        gy = torch.randn(conditions, out)
        trunk.append((x, w, torch.empty_like(gy), gy, torch.empty_like(x), torch.empty_like(w)))
    layers = []
    for out, inn in shapes:
        x = torch.randn(conditions, samples, inn)
        w = torch.randn(conditions, out, inn)
        y = torch.empty(conditions, samples, out)
        layers.append((x, w, y, torch.randn_like(y), torch.empty_like(x), torch.empty_like(w)))

    def run() -> None:
        for x, w, y, *_ in trunk:
            torch.mm(x, w.T, out=y)
        torch.mm(h, head.T, out=flat)
        for x, w, y, *_ in layers:
            torch.bmm(x, w.mT, out=y)
        if backward:
            for i, (x, w, _, gy, gx, gw) in enumerate(layers):
                torch.bmm(gy.mT, x, out=gw)
                if i:  # the data need no gradient
                    torch.bmm(gy, w, out=gx)
            torch.mm(grad_flat.T, h, out=grad_head)
            torch.mm(grad_flat, head, out=grad_h)
            for i, (x, w, _, gy, gx, gw) in enumerate(trunk):
                torch.mm(gy.T, x, out=gw)
                if i:
                    torch.mm(gy, w, out=gx)

    return run


def case(
    sizes: tuple[int, ...], conditions: int = 64, samples: int = 32, runs: int = 15
) -> dict[str, dict[str, Timing]]:
    """Times one size of target, forward and forward with backward.

    Returns:
        `"forward"` and `"forward+backward"` → way → timing.

    Raises:
        AssertionError: The ways do not compute the same outputs and gradients.
    """
    torch.manual_seed(0)
    model = network(sizes)
    spec = FullSpec(model)
    encoder = TaskEncoder(conditions, dim=8)
    generator = MLPGenerator(
        spec, encoder, hidden=100, depth=1, input_encoding="none", init="hyperfan_in"
    )
    target = FunctionalTarget(model, spec)
    condition = encoder(torch.arange(conditions)).detach()
    x = torch.randn(conditions * samples, sizes[0])
    parts = [condition[i] for i in range(conditions)]
    blocks = x.split(samples)

    def ours() -> Tensor:
        out: Tensor = target(generator(condition), x)
        return out

    def loop() -> Tensor:
        outputs = []
        for part, block in zip(parts, blocks, strict=True):
            weights = {name: t[0] for name, t in generator(part).named().items()}
            outputs.append(functional_call(model, weights, (block,)))
        return torch.cat(outputs)

    def one(tokens: Tensor, pooled: Tensor, block: Tensor) -> Tensor:
        single = Condition(tokens[None], torch.ones(1, 1, dtype=torch.bool), pooled[None])
        weights = {name: t[0] for name, t in generator(single).named().items()}
        out: Tensor = functional_call(model, weights, (block,))
        return out

    mapped = vmap(one)

    def vmapped() -> Tensor:
        out: Tensor = mapped(condition.tokens, condition.pooled, x.unflatten(0, (conditions, -1)))
        return out.flatten(0, 1)

    ways: dict[str, Callable[[], Tensor]] = {"ours": ours, "loop": loop, "vmap": vmapped}
    weight = generator.head.weights[0]
    results, gradients = {}, {}
    for name, way in ways.items():
        results[name] = way()
        (gradients[name],) = torch.autograd.grad(results[name].square().mean(), weight)
    for name in ways:
        torch.testing.assert_close(results[name], results["ours"], rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(gradients[name], gradients["ours"], rtol=1e-3, atol=1e-4)

    def no_grad(way: Callable[[], Tensor]) -> Callable[[], object]:
        return torch.no_grad()(way)

    def step(way: Callable[[], Tensor]) -> Callable[[], object]:
        def run() -> None:
            generator.zero_grad(set_to_none=True)
            way().square().mean().backward()

        return run

    features = weight.shape[1]
    timings = {}
    for mode, wrap in (("forward", no_grad), ("forward+backward", step)):
        timed: dict[str, Callable[[], object]] = {name: wrap(way) for name, way in ways.items()}
        timed["bound"] = products(sizes, conditions, samples, features, mode != "forward")
        timings[mode] = interleave(timed, runs=runs)
    return timings


def run(runs: int = 15) -> dict[str, Any]:
    """Runs every case; see `hypergen bench` for the keys."""
    rows = []
    for name, sizes in progress(SIZES.items(), desc="bench core", unit="case"):
        for mode, t in case(sizes, runs=runs).items():
            label = f"{name}, 64 conditions x 32 samples, {mode}"
            rows.append(row(f"{label}, against loop", t["ours"], t["loop"], t["bound"]))
            rows.append(row(f"{label}, against vmap", t["ours"], t["vmap"], t["bound"]))
    return {"name": "core", "rows": rows}
