"""Identity of a frozen model: a hash of its parameters, and of what quantised layers hold."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn


def model_fingerprint(model: nn.Module, samples: int = 4096) -> str:
    """Identifies a base model by the names, shapes and (sampled) values of its parameters.

    Up to `samples` evenly spaced entries per tensor are hashed, so that it takes milliseconds for
    a model of billions; parameters on the meta device count by shape alone. The dtype does not
    count, since one adapter serves a base in float32 and in bfloat16: values are rounded to
    bfloat16 before hashing. Whole numbers of quantised layers, which may be buffers too, are hashed
    as they are: another quantisation is another base.

    Returns:
        SHA-256, hexadecimal.
    """
    digest = hashlib.sha256()
    for name, parameter in sorted([*model.named_parameters(), *_quantised(model)]):
        digest.update(f"{name}{tuple(parameter.shape)}".encode())
        if parameter.device.type != "meta":
            flat: Tensor = _plain(parameter).flatten()
            step = max(1, flat.numel() // samples)
            sample = flat[::step][:samples]
            if sample.is_floating_point():
                sample = sample.to(torch.bfloat16).view(torch.int16)
            digest.update(sample.cpu().numpy().tobytes())
    return digest.hexdigest()


def _quantised(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Numbers of quantised layers that are not parameters: buffers, and torch's packed weights."""
    for path, module in model.named_modules():
        if is_quantised_linear(module):
            yield from module.named_buffers(path)
            weight = getattr(module, "weight", None)
            if callable(weight) and not isinstance(weight, (Tensor, nn.Module)):
                yield f"{path}.weight", weight()


def _plain(tensor: Tensor) -> Tensor:
    """The numbers of a tensor that keeps them in a form of its own, such as torchao's."""
    tensor = tensor.detach()
    if tensor.is_quantized:
        return tensor.int_repr()
    return tensor if type(tensor) in (Tensor, nn.Parameter) else tensor.dequantize()


def is_quantised_linear(module: nn.Module) -> bool:
    """Whether the module stands in for a `Linear` without being one, as quantised layers do.

    bitsandbytes derives from `Linear`; GPTQ, AWQ, quanto and torch's own dynamic quantisation do
    not. What they share is all that LoRA needs: `in_features`, `out_features` and a forward.
    """
    sizes = (getattr(module, name, None) for name in ("in_features", "out_features"))
    if isinstance(module, nn.Linear) or not all(type(size) is int for size in sizes):
        return False
    # A wrapper around a linear layer, such as PEFT's, is not the layer itself.
    return not any(hasattr(child, "in_features") for child in module.children())
