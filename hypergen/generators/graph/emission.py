"""The flat buffers of a plan's architectures, from the vectors of their parameters' nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from hypergen.generators.graph.decoders import MatrixDecoder, VectorDecoder, check_finite
from hypergen.generators.graph.plan import Group, Plan
from hypergen.generators.graph.rules import Rule

FACTORS = 1 << 25  # most numbers that the factors of parameters made together have

Place = Callable[[Rule], Tensor | None]


def joined(
    x: Tensor, plan: Plan, matrices: MatrixDecoder, vectors: VectorDecoder, seed: int
) -> list[Tensor]:
    """The flat buffers, differentiably.

    Args:
        x: `[P, D]`, vectors of the plan's parameters.
        plan: What to generate.
        matrices: The decoder of matrices.
        vectors: The decoder of vectors.
        seed: Seed of the noise.
    """
    made = matrices.prepare(x[: plan.matrix_count], plan.matrices)
    parts = [
        matrices.emit(own, group, slice(None), seed)
        for own, group in zip(made, plan.matrices, strict=True)
    ]
    parts += vectors(x[plan.matrix_count :], plan)
    # Each group is split once: its gradient is one concatenation.
    cuts: list[list[int]] = [[] for _ in plan.groups]
    for pieces in plan.pieces:
        for piece in pieces:
            cuts[piece.group].append(piece.rows[1] - piece.rows[0])
    split = [iter(part.split(own)) for part, own in zip(parts, cuts, strict=True)]
    return [
        torch.cat([next(split[piece.group]).reshape(-1) for piece in pieces]).to(x.dtype)
        for pieces in plan.pieces
    ]


def written(
    x: Tensor, plan: Plan, matrices: MatrixDecoder, vectors: VectorDecoder, seed: int
) -> list[Tensor]:
    """The flat buffers, each number written where it belongs, without a gradient; as `joined`."""
    made = matrices.prepare(x[: plan.matrix_count], plan.matrices)
    values = vectors(x[plan.matrix_count :], plan)
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
                matrices.emit(made[piece.group], group, rows, seed, view)
            else:
                view[..., 0] = values[piece.group - len(made)][rows]
        flats.append(flat)
    return flats


def one_by_one(
    x: Tensor, plan: Plan, matrices: MatrixDecoder, vectors: VectorDecoder, seed: int, out: Place
) -> Iterator[tuple[Rule, Tensor]]:
    """The parameters one after the other; see `GraphHypernetwork.each`.

    Args:
        x: `[P, D]`, vectors of the plan's parameters.
        plan: What to generate.
        matrices: The decoder of matrices.
        vectors: The decoder of vectors.
        seed: Seed of the noise.
        out: For each parameter where to write it, or None for a new tensor.
    """
    values = vectors(x[plan.matrix_count :], plan)
    for group, own in zip(plan.vectors, values, strict=True):
        check_finite(own, group)
        for rule, value in zip(group.rules, own, strict=True):
            place = out(rule)
            shaped = value.view(rule.slot.shape)
            yield rule, shaped if place is None else place.copy_(shaped)
    for parts in _portions(plan, matrices):
        span = slice(parts[0].span.start, parts[-1].span.stop)
        for made, part in zip(matrices.prepare(x[span], parts), parts, strict=True):
            check_finite(made.size, part)
            width = part.columns * part.positions
            for i, rule in enumerate(part.rules):
                place = out(rule)
                if place is None:
                    place = x.new_empty(rule.slot.shape)
                view = place.view(1, part.rows, width)
                matrices.emit(made, part, slice(i, i + 1), seed, view)
                yield rule, place


def _portions(plan: Plan, matrices: MatrixDecoder) -> Iterator[list[Group]]:
    """The matrices in portions whose factors hold `FACTORS` numbers at most, or those of one."""
    portion: list[Group] = []
    held = 0
    for group in plan.matrices:
        # Its factor, and the numbers that this is made of.
        each = group.positions * (matrices.factor * group.columns + matrices.outputs)
        step = max(1, FACTORS // each)
        for start in range(0, len(group), step):
            part = group[start : start + step]
            if portion and held + len(part) * each > FACTORS:
                yield portion
                portion, held = [], 0
            portion.append(part)
            held += len(part) * each
    if portion:
        yield portion
