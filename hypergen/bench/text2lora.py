"""`hypergen bench text2lora`: an adapter from a sentence, against the way Text-to-LoRA does it.

Cost model of generation, for T tasks, E adapted modules with w numbers each on average and trunks
of h features and d blocks: the head takes 2 T E h w operations and the trunk 8 d T E h², and
4 T E w bytes of adapters are written. Both ways take the same number of operations: ours in one
product a group for all tasks, whereas one task at a time has too few rows to keep the processor's
units busy, and its small operations come T times as often. The bound runs the products alone,
which write every number once: it is what the processor can do at these shapes in float32, and
reference over bound is the most that any order of the same operations can win.

Cost model of a training step, for N rows of L tokens, a model of n numbers in the matrices of its
layers, width c and vocabulary V, and K labelled tokens a row: frozen forward and backward take
4 N L n operations, for the weights get no gradients. The logits add 4 N L c V where every position
has them, 4 N K c V where the labelled ones do, and N L V numbers several times over in memory. An
adapter of rank r from `in` to `out` takes 6 N L r (in + out) operations. If A and B are repeated
for every token, N L r (in + out) numbers more are written, kept for the backward pass, and summed
there, and the products become N L tiny ones, each of which reads its own copy. The bound runs the
frozen model alone: no adapters, logits at labelled positions, gradients down to the first module
that would be adapted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from hypergen._utils.progress import progress
from hypergen.bench.text2lora_memory import BUILD, measure
from hypergen.bench.text2lora_peer import Peer
from hypergen.bench.text2lora_step import (
    CHECKPOINTED,
    WAYS,
    Sizes,
    Step,
    language_model,
    make_generator,
)
from hypergen.bench.timing import interleave, row
from hypergen.generators import TextToLoRA
from hypergen.generators.hyper.mlp import ResidualBlock
from hypergen.specs import LoRASpec, Weights

GENERATION = Sizes(layers=30)  # all of SmolLM2-135M
# A fifth of its layers, to fit the time; logits weigh more here than in the whole model, which is
# why there is a row without needless ones.
TRAINING = Sizes(layers=6)


def generation(sizes: Sizes, runs: int = 15) -> dict[str, Any]:
    """Times the generation of one adapter for each task.

    Returns:
        One row in seconds.

    Raises:
        AssertionError: The two ways generate different adapters.
    """
    torch.manual_seed(0)
    with torch.device("meta"):  # shapes are all that a spec reads
        model = language_model(sizes)
    spec = LoRASpec(model, ["q_proj", "v_proj"], r=sizes.rank)
    generator, condition = make_generator(spec, sizes)
    generator.eval()
    peer = Peer(generator)

    def ours() -> Weights:
        return generator.generate(condition=condition)

    def reference() -> list[dict[str, Tensor]]:
        return peer.generate(condition.pooled)

    weights = ours()
    for i, state in enumerate(reference()):
        assert state.keys() == set(spec.names)
        for name, tensor in state.items():
            torch.testing.assert_close(tensor, weights[name][i], rtol=1e-3, atol=1e-4)
    timed = interleave(
        {"ours": ours, "reference": reference, "bound": products(generator, sizes.tasks)},
        runs=runs,
    )
    work = limits(generator, sizes.tasks)
    label = (
        f"generate {sizes.tasks} adapters ({sizes.layers} layers: {work['gflop']:.1f} GFLOP, "
        f"{work['mb_written']:.1f} MB written), against task by task"
    )
    seconds = timed["ours"].minimum
    return {
        **row(label, timed["ours"], timed["reference"], timed["bound"]),
        **work,
        "ratio_of_bound": timed["reference"].minimum / timed["bound"].minimum,
        "gflop_per_s": work["gflop"] / seconds,
        "gb_written_per_s": work["mb_written"] / 1e3 / seconds,
    }


def limits(generator: TextToLoRA, tasks: int) -> dict[str, float]:
    """What the products of trunk and heads cost: `gflop`, and `mb_written` of adapters."""
    operations = sum(2 * len(x) * matrix.numel() for x, matrix in _operands(generator, tasks))
    return {"gflop": operations / 1e9, "mb_written": 4 * tasks * generator.spec.numel / 1e6}


def products(generator: TextToLoRA, tasks: int) -> Callable[[], None]:
    """The matrix products of trunk and heads alone, into buffers allocated beforehand."""
    pairs = _operands(generator, tasks)
    buffers = [(x, matrix, x @ matrix) for x, matrix in pairs]

    def run() -> None:
        for x, matrix, out in buffers:
            torch.mm(x, matrix, out=out)

    return run


def _operands(generator: TextToLoRA, tasks: int) -> list[tuple[Tensor, Tensor]]:
    """Features (random) and matrix of every product of trunk and heads."""
    linears = [
        layer
        for block in generator.trunk
        if isinstance(block, ResidualBlock)
        for layer in block.body
        if isinstance(layer, nn.Linear)
    ]
    rows = [len(generator.layers_index) * tasks] * len(linears)
    matrices = [layer.weight.detach().T for layer in linears]
    for group, head in zip(generator.spec.groups, generator.head, strict=True):
        rows.append(len(group) * tasks)
        matrices.append(head.detach())
    return [(torch.randn(n, len(m)), m) for n, m in zip(rows, matrices, strict=True)]


def training(sizes: Sizes, runs: int = 3) -> list[dict[str, Any]]:
    """Times one training step: against the peer, and against it without needless logits.

    Raises:
        AssertionError: The ways have different losses or gradients.
    """
    step = Step(sizes)
    step.check()  # which warms the ways up too
    timed = interleave({name: step.way(name) for name in WAYS}, runs=runs, warmup=0)
    return [
        row(label, timed["ours"], timed[name], timed["bound"])
        for name, label in _labels(sizes, "training step").items()
    ]


def memory(sizes: Sizes) -> list[dict[str, Any]]:
    """Peak memory of one training step above that of the built model, in MiB."""
    built = measure(BUILD, sizes)
    peak = {name: measure(name, sizes) - built for name in (*WAYS, CHECKPOINTED)}
    labels = _labels(sizes, "memory of a step")
    cases = [("ours", name, label) for name, label in labels.items()]
    kept = next(iter(labels.values())).rpartition(",")[0]
    cases.append((CHECKPOINTED, "ours", f"{kept}, checkpointed, against ours without"))
    return [
        {
            "case": label,
            "metric": "MiB",
            "ours": peak[ours],
            "reference": peak[name],
            "ratio": peak[name] / peak[ours],
            "bound": peak["bound"],
            "over_bound": peak[ours] / peak["bound"],
            "built": built,
            "runs": 1,
        }
        for ours, name, label in cases
    ]


def _labels(sizes: Sizes, what: str) -> dict[str, str]:
    """Way → case, for the two references."""
    rows = sizes.tasks * sizes.samples
    shape = f"{what} ({sizes.layers} layers, {rows} x {sizes.tokens} tokens)"
    endings = ("against per-token adapters", "against the same, logits at labels")
    return {name: f"{shape}, {end}" for name, end in zip(WAYS[1:3], endings, strict=True)}


def run(runs: int = 3) -> dict[str, Any]:
    """Runs every case; see `hypergen bench` for the keys."""
    parts: list[Callable[[], list[dict[str, Any]]]] = [
        lambda: [generation(GENERATION, 5 * runs)],
        lambda: training(TRAINING, runs),
        lambda: memory(TRAINING),
    ]
    rows: list[dict[str, Any]] = []
    for part in progress(parts, desc="bench text2lora", unit="part"):
        rows += part()
    return {"name": "text2lora", "rows": rows}
