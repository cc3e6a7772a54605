"""`hypergen bench diffusion`: training, sampling, scoring and reading of sampled weights.

Three models of 8,192 weights as 32 × 256 tokens, batch 16, each with as many parameters as the
published method written from its description (`diffusion_peer`): a latent model like p-diff, whose
denoiser is an MLP here (every latent reads all others at once, where a convolution at full length
uses each of its parameters once a latent), one of recurrent prototypes like RPG, and a transformer
on current weights like G.pt.

Cost model: nearly all of a step is matrix products and convolutions. The bound runs exactly those
of our model (twice more for the backward pass), into buffers allocated beforehand, and nothing
else; attention and the selective scan, which are small here, are not in it. A sampling costs as
many forward passes as it has steps, what depends on the condition alone once, and no more.
Sampling 1000 steps is timed over 50 of them, which are all alike, times 20.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hypergen._utils.progress import progress
from hypergen.bench import diffusion_peer as peer
from hypergen.bench.diffusion_networks import run as run_networks
from hypergen.bench.timing import Timing, interleave, row
from hypergen.conditions import FusedEncoder, MetricEncoder, VectorEncoder, WeightsEncoder
from hypergen.generators import DiffusionGenerator
from hypergen.generators.diffusion import Denoising, GPt
from hypergen.specs import Slot, TokenLayout, WeightSpec

TOKENS, WIDTH, BATCH = 32, 256, 16
STEPS, LONG, FEW = 50, 1000, 20
Way = Callable[[], object]


@dataclass
class Model:
    """One of the three, ours and the published way.

    Attributes:
        ours: The generator.
        reference: The model written from its description.
        data: Whether it predicts data.
        given: Condition of the reference, for a number of rows.
        inputs: Raw inputs of ours, for a number of rows.
        numel: Numbers of a network.
    """

    ours: DiffusionGenerator
    reference: Any
    data: bool
    given: Callable[[int], Any]
    inputs: Callable[[int], dict[str, Any]]
    numel: int = TOKENS * WIDTH

    @property
    def parameters(self) -> dict[str, int]:
        """Numbers of trained parameters."""
        return {"ours": _count(self.ours), "reference": _count(self.reference)}


class _Rows:
    """Training checkpoints, of which generators take statistics."""

    def __init__(self, numel: int) -> None:
        self.flat = torch.randn(64, numel, generator=torch.Generator().manual_seed(0))

    def training_weights(self) -> Tensor:
        """`[64, numel]`."""
        return self.flat


def models(scale: int = 1) -> dict[str, Callable[[], Model]]:
    """The three by name, made when called.

    Args:
        scale: Divides all widths, for tests.
    """
    width, tokens = WIDTH // scale, TOKENS
    spec = WeightSpec([Slot("weight", (tokens * width,), "weight")])
    bits = torch.randint(2, (256, peer.BITS), generator=torch.Generator().manual_seed(1)).float()

    def latent() -> Model:
        codec = {"name": "ConvCodec", "latent": 128 // scale, "channels": [16, 32], "stride": 4}
        denoiser = {"name": "MLPDenoiser", "hidden": 1400 // scale}
        ours = DiffusionGenerator(
            spec, VectorEncoder(peer.BITS, 64), codec, denoiser, _process("noise"), codec_steps=0
        )
        channels = [c // scale for c in (64, 128, 256, 512, 256, 128, 64)]
        reference = peer.PDiff(spec.numel, 128 // scale, [8, 16, 32, 64, 64], channels)
        return Model(ours, reference, False, *_bits(bits), spec.numel)

    def recurrent() -> Model:
        codec = {"name": "TokenCodec", "size": width, "by": "flat"}
        denoiser = {"name": "RecurrentDenoiser", "width": 8 * (136 // scale // 8), "layers": 2}
        denoiser |= {"hidden": 264 // scale, "depth": 2, "heads": 4}
        ours = DiffusionGenerator(
            spec, VectorEncoder(peer.BITS, 64), codec, denoiser, _process("noise")
        )
        channels = [c // scale for c in (32, 64, 128, 128, 64, 32)]
        reference = peer.RPG(tokens, width, 256 // scale, channels)
        return Model(
            ours, reference, False, lambda n: bits[:n], lambda n: {"vector": bits[:n]}, spec.numel
        )

    def prompted() -> Model:
        weights = WeightsEncoder.from_layout(TokenLayout(spec, width, "flat"), 64, pool=True)
        metric = MetricEncoder(dim=64)
        encoder = FusedEncoder({"weights": weights, "metric": metric}, 64)
        codec = {"name": "TokenCodec", "size": width, "by": "flat", "normalize": "global"}
        denoiser = {"name": "DiT", "width": 320 // scale, "depth": 6, "heads": 4, "cross": False}
        ours = GPt(spec, encoder, codec, denoiser, _process("data"))
        reference = peer.GPT(tokens, width, 256 // scale, 6, 4)
        flat = torch.randn(BATCH, spec.numel, generator=torch.Generator().manual_seed(2))
        values = torch.rand(BATCH, 2, generator=torch.Generator().manual_seed(3))
        return Model(
            ours,
            reference,
            True,
            lambda n: (flat[:n].unflatten(1, (tokens, width)), values[:n]),
            lambda n: {"weights": flat[:n], "metric": values[:n]},
            spec.numel,
        )

    return {"latent (p-diff)": latent, "prototypes (RPG)": recurrent, "prompted (G.pt)": prompted}


def case(
    name: str, make: Callable[[], Model], runs: int, steps: int = STEPS
) -> list[dict[str, Any]]:
    """Times one model: a training step, and sampling of one and of many networks."""
    torch.manual_seed(0)
    model = make()
    ours, reference = model.ours, model.reference
    ours.prepare(_Rows(model.numel))
    flat = torch.randn(BATCH, model.numel)
    process = peer.Ancestral(model.data)
    parameters = [list(m.parameters()) for m in (ours, reference)]
    optimizers = [torch.optim.AdamW(p, lr=1e-4, fused=True) for p in parameters]
    objective = Denoising()

    def ours_step() -> None:
        optimizers[0].zero_grad()
        condition = ours.encode(**model.inputs(BATCH))
        ours.loss({"weights": flat, "condition": condition}, objective).backward()
        optimizers[0].step()

    def reference_step() -> None:
        optimizers[1].zero_grad()
        process.loss(reference, reference.latents(flat), model.given(BATCH)).backward()
        optimizers[1].step()

    ours.train()
    train = interleave(
        {
            "ours": ours_step,
            "reference": reference_step,
            "bound": products(ours, ours_step, backward=True),
        },
        runs=runs,
    )
    codecs = []
    if ours.codec.trained:
        codecs = [_codec_row(name, ours, reference, flat, optimizers, runs)]
    ours.eval()
    conditions = {n: ours.encode(**model.inputs(n)).detach() for n in (1, BATCH)}

    def sample(n: int, count: int) -> Way:
        @torch.no_grad()
        def run() -> object:
            ours.process.choose("ddpm" if count > FEW else "dpm++", count)
            return ours.sample(conditions[n], list(range(n)))

        return run

    def one_by_one() -> object:
        latent = process.sample(reference, reference.shape, model.given(1), steps)
        with torch.no_grad():
            return reference.weights(latent)

    ways = {"one": sample(1, steps), "many": sample(BATCH, steps), "few": sample(BATCH, FEW)}
    bounds = {f"{n} bound": products(ours, w, backward=False) for n, w in ways.items()}
    t = interleave({**ways, "reference": one_by_one, **bounds}, runs=max(2, runs // 3), warmup=1)
    long = LONG // steps
    rows = [
        row(
            f"{name}, training step, batch {BATCH}",
            train["ours"],
            train["reference"],
            train["bound"],
        ),
        row(f"{name}, 1 network, {steps} evaluations", t["one"], t["reference"], t["one bound"]),
        row(
            f"{name}, 1 network, {LONG} evaluations",
            _times(t["one"], long),
            _times(t["reference"], long),
            _times(t["one bound"], long),
        ),
        row(
            f"{name}, {BATCH} networks, {steps} evaluations",
            t["many"],
            _times(t["reference"], BATCH),
            t["many bound"],
        ),
        row(
            f"{name}, {BATCH} networks, {LONG} evaluations",
            _times(t["many"], long),
            _times(t["reference"], BATCH * long),
            _times(t["many bound"], long),
        ),
        row(
            f"{name}, each of {BATCH} networks, {FEW} evaluations (reference: {LONG}, one by one)",
            _times(t["few"], 1 / BATCH),
            _times(t["reference"], long),
            _times(t["few bound"], 1 / BATCH),
        ),
    ]
    return [{**r, "parameters": model.parameters} for r in [*codecs, *rows]]


def _codec_row(
    name: str,
    ours: DiffusionGenerator,
    reference: Any,
    flat: Tensor,
    optimizers: list[torch.optim.AdamW],
    runs: int,
) -> dict[str, Any]:
    """A training step of both autoencoders."""
    codecs = {"ours": ours.codec, "reference": reference.codec}

    def step(way: str, optimizer: torch.optim.AdamW) -> Way:
        def run() -> None:
            optimizer.zero_grad()
            codecs[way].loss(flat).backward()
            optimizer.step()

        return run

    ways = {way: step(way, o) for way, o in zip(codecs, optimizers, strict=True)}
    bound = products(ours.codec, ways["ours"], backward=True)
    t = interleave({**ways, "bound": bound}, runs=runs)
    label = f"{name}, training step of the autoencoder, batch {BATCH}"
    return row(label, t["ours"], t["reference"], t["bound"])


def products(model: nn.Module, call: Way, backward: bool) -> Way:
    """The matrix products and convolutions of a call alone, into buffers made beforehand.

    Args:
        model: Whose `nn.Linear` and `nn.Conv1d` modules are watched during one call.
        call: Runs the model.
        backward: Whether the two products of the backward pass are run too.
    """
    seen: list[tuple[int, int, int]] = []

    def watch(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(module, nn.Linear):
            seen.append(
                (output.numel() // module.out_features, module.in_features, module.out_features)
            )
        elif isinstance(module, nn.ConvTranspose1d):
            outer = module.out_channels * module.kernel_size[0]
            seen.append((inputs[0].numel() // module.in_channels, module.in_channels, outer))
        elif isinstance(module, nn.Conv1d):
            inner = module.in_channels // module.groups * module.kernel_size[0]
            seen.append((output.numel() // module.out_channels, inner, module.out_channels))

    handles = [m.register_forward_hook(watch) for m in model.modules()]
    try:
        call()
    finally:
        for handle in handles:
            handle.remove()
    # Equal shapes share their buffers: the cache is no colder than that of the model.
    buffers: dict[tuple[int, int, int], tuple[Tensor, ...]] = {}
    for shape in seen:
        if shape not in buffers:
            rows, inner, outer = shape
            x, w, y = torch.randn(rows, inner), torch.randn(outer, inner), torch.randn(rows, outer)
            buffers[shape] = (
                x,
                w,
                y,
                torch.empty_like(y),
                torch.empty_like(x),
                torch.empty_like(w),
            )

    def run() -> None:
        for shape in seen:
            x, w, gradient, y, gx, gw = buffers[shape]
            torch.mm(x, w.T, out=y)
            if backward:
                torch.mm(gradient, w, out=gx)
                torch.mm(gradient.T, x, out=gw)

    return run


def _bits(bits: Tensor) -> tuple[Callable[[int], Any], Callable[[int], dict[str, Any]]]:
    return (lambda n: bits[:n]), (lambda n: {"vector": bits[:n]})


def _process(prediction: str) -> dict[str, Any]:
    return {"name": "Diffusion", "prediction": prediction, "sampler": "ddpm", "steps": STEPS}


def _times(timing: Timing, factor: float) -> Timing:
    return Timing(timing.minimum * factor, timing.median * factor, timing.runs)


def _count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def run(runs: int = 9) -> dict[str, Any]:
    """Runs every case; see `hypergen bench` for the keys."""
    rows = []
    for name, make in progress(models().items(), desc="bench diffusion", unit="model"):
        rows += case(name, make, runs)
    return {"name": "diffusion", "rows": [*rows, *run_networks(runs)]}
