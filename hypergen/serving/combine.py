"""Several adapters as one: exact sums of updates, and merges by PEFT's own functions."""

from __future__ import annotations

import argparse
import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hypergen._utils.errors import UsageError, WeightsError, did_you_mean
from hypergen._utils.progress import progress
from hypergen.serving.adapters import Adapter, aligned, factors, read_adapters
from hypergen.serving.output import check_out
from hypergen.serving.portable import portable_profile
from hypergen.specs import Weights
from hypergen.specs.lora import from_updates
from hypergen.specs.merging import balance

# Name → what it does, one line of help each.
METHODS = {
    "add": "sum of W × update, exact: the ranks are concatenated",
    "average": "add, with weights that are divided by their sum",
    "svd": "add, cut to --rank (the largest of the adapters' if not given)",
    "linear": "sum of the factors A and of the factors B",
    "ties": "linear, after small entries are trimmed and signs settled",
    "dare_linear": "linear, after random entries are dropped and the others scaled up",
    "dare_ties": "dare_linear, with signs settled",
    "magnitude_prune": "linear, after small entries are trimmed",
    "ties_svd": "ties on whole updates, cut to --rank",
    "dare_linear_svd": "dare_linear on whole updates, cut to --rank",
    "dare_ties_svd": "dare_ties on whole updates, cut to --rank",
    "magnitude_prune_svd": "magnitude_prune on whole updates, cut to --rank",
}
_EXACT = ("add", "average")
_DENSE = ("ties", "dare_linear", "dare_ties", "magnitude_prune")  # take a density

Merge = Callable[[list[Tensor], Tensor], Tensor]


@torch.no_grad()
def combine(
    adapters: Sequence[Weights | str | Path],
    weights: Sequence[float] | None = None,
    *,
    method: str = "add",
    density: float = 0.5,
    sign: str = "total",
    rank: int | None = None,
    seed: int = 0,
) -> Weights:
    """Makes one LoRA of several, of any ranks and alphas.

    `combine([a, b])` adds, `combine([a, b], [1, -1])` takes the difference, `combine([a], [-1])`
    negates, `combine([a], [0.5])` scales. Sums of updates are exact (ranks are concatenated) until
    a rank is asked for; then each module's best approximation of that rank is taken. All other
    methods are PEFT's own (`peft.utils.merge_utils`), module by module, and give what
    `LoraModel.add_weighted_adapter` gives: Yadav et al., "TIES-Merging", arXiv:2306.01708; Yu et
    al., "Language Models are Super Mario" (DARE), arXiv:2311.03099.

    Args:
        adapters: LoRA weights, folders of stock PEFT or of hypergen, folders of several, and files
            of `Weights.save`.
        weights: A factor for each adapter; 1 when not given. Negative ones subtract.
        method: A key of `METHODS`.
        density: Share of the entries that stay, of methods that trim or drop; in (0, 1].
        sign: How TIES settles signs: by `"total"` size or by `"frequency"`.
        rank: Rank of the result: of `add` and `average` as of the methods `…svd`.
        seed: Seed of what DARE drops.

    Returns:
        One LoRA, its scaling 1.

    Raises:
        UsageError: An unknown method or bad options; says which.
        RunError: A folder or file is missing or damaged.
        WeightsError: Adapters of different bases or modules (names both), or of ranks that the
            method cannot take.
    """
    if method not in METHODS:
        raise UsageError(f"unknown method {method!r}.{did_you_mean(method, METHODS)}")
    found: list[Adapter] = []
    for i, source in enumerate(adapters):
        if isinstance(source, Weights):
            names = [
                f"adapter {i}" + (f"[{j}]" if len(source) > 1 else "") for j in range(len(source))
            ]
            found += [Adapter.of(one, name) for one, name in zip(source, names, strict=True)]
        else:
            found += read_adapters(source)
    found = aligned(found)
    given = _weights(weights, len(found), method)
    _check(method, density, sign, rank)
    merge = _merge(method, density, sign)
    order = found[0].config["order"]
    pairs = {}
    # PEFT draws from torch's own stream, which must not be left changed.
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The density")
        torch.manual_seed(seed)
        for path in progress(order, desc="combining", unit="module"):
            parts = [factors(adapter, path) for adapter in found]
            a, b = _pair(path, parts, given, method, merge, rank, [x.name for x in found])
            pairs[path] = a[None], b[None]
    out = from_updates(found[0].config, pairs).check_finite()
    out.provenance = {
        "combined": {
            "method": method,
            "of": [adapter.name for adapter in found],
            "weights": given,
            **({"rank": rank} if rank is not None else {}),
            **({"density": density} if _dense(method) else {}),
            **({"seed": seed} if method.startswith("dare") else {}),
        }
    }
    return out


def _pair(
    path: str,
    parts: list[tuple[Tensor, Tensor, float]],
    weights: list[float],
    method: str,
    merge: Merge,
    rank: int | None,
    names: list[str],
) -> tuple[Tensor, Tensor]:
    """A and B of a module, whose product is the update."""
    scaled = [w * scaling for w, (_, _, scaling) in zip(weights, parts, strict=True)]
    if method in (*_EXACT, "svd"):
        a = torch.cat([a for a, _, _ in parts])
        b = torch.cat([w * b for w, (_, b, _) in zip(scaled, parts, strict=True)], 1)
        if method == "svd" and rank is None:
            rank = max(len(a) for a, _, _ in parts)
        return (a, b) if rank is None else balance(a, b, rank)
    if method.endswith("_svd"):
        updates = [scaling * (b @ a) for a, b, scaling in parts]
        kept = max(len(a) for a, _, _ in parts) if rank is None else rank
        return _cut(merge(updates, torch.tensor(weights)), kept)
    ranks = [len(a) for a, _, _ in parts]
    if len(set(ranks)) > 1:
        other = next(i for i, r in enumerate(ranks) if r != ranks[0])
        raise WeightsError(
            f"module {path!r} has rank {ranks[0]} in {names[0]} and {ranks[other]} in "
            f"{names[other]}: {method} adds factors entry by entry, use add or "
            f"{'svd' if method == 'linear' else f'{method}_svd'}"
        )
    # As PEFT: the root of a factor to either side, its sign to one.
    root = torch.tensor([math.sqrt(abs(w)) for w in scaled])
    signs = torch.tensor([-1.0 if w < 0 else 1.0 for w in scaled])
    return merge([a for a, _, _ in parts], root * signs), merge([b for _, b, _ in parts], root)


def _cut(update: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The best factors of a rank; singular values are shared evenly between them."""
    u, s, vh = torch.linalg.svd(update.double(), full_matrices=False)
    root = s[:rank].sqrt()
    a, b = root[:, None] * vh[:rank], u[:, :rank] * root
    missing = rank - len(root)
    a, b = torch.nn.functional.pad(a, (0, 0, 0, missing)), torch.nn.functional.pad(b, (0, missing))
    return a.to(update.dtype), b.to(update.dtype)


def _merge(method: str, density: float, sign: str) -> Merge:
    """PEFT's function for tensors and their weights."""
    from peft.utils import merge_utils

    name = method.removesuffix("_svd")
    if name not in _DENSE:
        return merge_utils.task_arithmetic
    function = getattr(merge_utils, name)
    rest = (density, sign) if name.endswith("ties") else (density,)
    return lambda tensors, weights: function(tensors, weights, *rest)


def _dense(method: str) -> bool:
    return method.removesuffix("_svd") in _DENSE


def _weights(given: Sequence[float] | None, count: int, method: str) -> list[float]:
    weights = [1.0] * count if given is None else [float(w) for w in given]
    if len(weights) != count:
        raise UsageError(f"{len(weights)} weights for {count} adapters: give one for each")
    if not all(math.isfinite(w) for w in weights):
        raise UsageError(f"the weights {weights} must be finite")
    if method != "average":
        return weights
    total = sum(weights)
    if not abs(total) > 1e-12:
        raise UsageError("the weights of an average must not sum to zero: use add")
    return [w / total for w in weights]


def _check(method: str, density: float, sign: str, rank: int | None) -> None:
    if not 0 < density <= 1:
        raise UsageError(f"density is {density}: it must be above 0 and at most 1")
    if sign not in ("total", "frequency"):
        raise UsageError(f"sign is {sign!r}: use 'total' or 'frequency'")
    if rank is None:
        return
    if rank < 1:
        raise UsageError(f"rank is {rank}: it must be at least 1")
    if method not in _EXACT and not method.endswith("svd"):
        raise UsageError(
            f"{method} keeps the rank of the adapters: leave rank out, or use "
            f"{'svd' if method == 'linear' else f'{method}_svd'}"
        )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `hypergen combine`."""
    add = parser.add_argument
    add(
        "adapters",
        metavar="ADAPTER",
        nargs="+",
        help="folder that PEFT or hypergen wrote (also of several), or file of Weights.save",
    )
    methods = "; ".join(f"{name}: {text}" for name, text in METHODS.items())
    add("--method", metavar="NAME", default="add", help=f"{methods} (default: add)")
    add(
        "--weights",
        metavar="W",
        nargs="+",
        type=float,
        help="a factor for each adapter, negative to subtract (default: 1)",
    )
    add("--density", metavar="D", type=float, default=0.5, help="share of entries that stay")
    add("--sign", choices=("total", "frequency"), default="total", help="how ties settles signs")
    add("--rank", metavar="R", type=int, help="rank of the result")
    add("--seed", metavar="N", type=int, default=0, help="seed of what dare drops")
    add("--out", metavar="DIR", required=True, help="folder to write")


def combine_command(args: argparse.Namespace) -> dict[str, Any]:
    """`hypergen combine A B … --out DIR`: writes a folder that stock PEFT loads.

    Returns:
        `{"out", "method", "of", "weights", "rank", "portable"}`.

    Raises:
        UsageError: Bad options, or `out` holds something else.
        RunError: An adapter is missing or damaged.
        WeightsError: They do not fit together; names both.
    """
    out = Path(args.out)
    check_out(out)
    made = combine(
        args.adapters,
        args.weights,
        method=args.method,
        density=args.density,
        sign=args.sign,
        rank=args.rank,
        seed=args.seed,
    )
    made.save_pretrained(out)
    how = made.provenance["combined"]
    portable = portable_profile(out)
    if args.json is None:
        terms = " + ".join(f"{w:g} × {n}" for w, n in zip(how["weights"], how["of"], strict=True))
        print(f"{out}: {how['method']} of {terms}, rank {made.spec.config['r']}")
        for problem in portable:
            print(f"note: {problem}")
    return {"out": str(out), **how, "rank": made.spec.config["r"], "portable": portable}
