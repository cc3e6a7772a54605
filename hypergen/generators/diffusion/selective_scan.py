"""The selective scan of state-space models as matrix products, in pure torch."""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any

import torch
from torch import Tensor

CHUNK = 64


def selective_scan(
    x: Tensor, decay: Tensor, read_in: Tensor, read_out: Tensor, chunk: int = CHUNK
) -> Tensor:
    """Runs h_t = exp(decay_t) h_{t-1} + read_in_t ⊗ x_t, y_t = read_out_t · h_t, all t at once.

    The state-space duality of Mamba-2 (Dao and Gu, "Transformers are SSMs", ICML 2024,
    arXiv:2405.21060): with one decay for each head, a chunk of Q steps is a masked Q × Q product,
    and what one chunk hands to the next is such a recurrence again, over chunks. No step is a step
    of Python.

    Args:
        x: `[B, L, H, P]`, already multiplied by the step size.
        decay: `[B, L, H]`, at most 0: step size times A.
        read_in: `[B, L, N]`, shared by the heads.
        read_out: `[B, L, N]`.
        chunk: Steps Q of a chunk. 2 · B · L · H · (Q · P + 2 · N · P) operations about.

    Returns:
        `[B, L, H, P]`.
    """
    length = x.shape[1]
    chunk = min(chunk, length)
    pad = -length % chunk
    if pad:  # steps of zero behind the end: nothing is read from them
        x, decay, read_in, read_out = (
            torch.cat([t, t.new_zeros(t.shape[0], pad, *t.shape[2:])], dim=1)
            for t in (x, decay, read_in, read_out)
        )
    x, decay, read_in, read_out = (
        t.unflatten(1, (-1, chunk)) for t in (x, decay, read_in, read_out)
    )
    decay = decay.permute(0, 1, 3, 2)  # [B, K, H, Q]
    within = _decays(decay)  # [B, K, H, Q, Q]
    # Inside of a chunk: a product as of attention, with decays for weights.
    match = read_out @ read_in.mT  # [B, K, Q, Q]
    values = x.transpose(2, 3)  # [B, K, H, Q, P]
    inside = (match[:, :, None] * within) @ values
    if x.shape[1] == 1:
        return inside.transpose(2, 3).flatten(1, 2)[:, :length]
    # What every chunk leaves behind, decayed to its end.
    to_end = within[..., -1, :]  # [B, K, H, Q]
    left = (read_in.mT[:, :, None] * to_end[..., None, :]) @ values  # [B, K, H, N, P]
    # The same recurrence over chunks; a chunk starts from what the ones before it left.
    between = _decays(decay.sum(-1).permute(0, 2, 1))  # [B, H, K, K]
    states = torch.einsum("bhkm,bmhnp->bkhnp", between, left)
    start = torch.cat([torch.zeros_like(states[:, :1]), states[:, :-1]], dim=1)
    from_start = decay.cumsum(-1).exp()  # [B, K, H, Q]
    carried = (read_out[:, :, None] @ start) * from_start[..., None]
    return (inside + carried).transpose(2, 3).flatten(1, 2)[:, :length]


def _decays(logs: Tensor) -> Tensor:
    """`[..., Q]` logarithms → `[..., Q, Q]`: entry (i, j) is exp(Σ_{j < s ≤ i}), 0 for j > i."""
    total = logs.cumsum(-1)
    difference = total[..., :, None] - total[..., None, :]
    size = logs.shape[-1]
    lower = torch.ones(size, size, dtype=torch.bool, device=logs.device).tril()
    return difference.masked_fill(~lower, -torch.inf).exp()


@cache
def fused_scan() -> Any | None:
    """`mamba_ssm`'s chunked kernel, or None where it is not installed or cannot be loaded."""
    try:
        module = importlib.import_module("mamba_ssm.ops.triton.ssd_combined")
        return module.mamba_chunk_scan_combined
    except Exception:  # a missing compiler or driver raises many things
        return None


def scan(x: Tensor, step: Tensor, rate: Tensor, read_in: Tensor, read_out: Tensor) -> Tensor:
    """The selective scan of a layer, by `mamba_ssm`'s kernel on an accelerator that has it.

    Args:
        x: `[B, L, H, P]`.
        step: `[B, L, H]`, positive step sizes.
        rate: `[H]`, negative rates A.
        read_in: `[B, L, N]`.
        read_out: `[B, L, N]`.

    Returns:
        `[B, L, H, P]`.
    """
    kernel = fused_scan() if x.is_cuda else None
    if kernel is not None:
        out: Tensor = kernel(x, step, rate, read_in[:, :, None], read_out[:, :, None], CHUNK)
        return out
    return selective_scan(x * step[..., None], step * rate, read_in, read_out)
