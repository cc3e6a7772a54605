"""Text-to-LoRA's own way, written from its description, with the numbers of our generator.

Charakorn et al., "Text-to-LoRA: Instant Transformer Adaption", ICML 2025, arXiv:2506.06105. What
its published code does at each step is kept: the trunk runs once for each type of module, on
embeddings joined and tiled over the layers; one task at a time is generated, and cut into tensors
layer by layer; in training, hooks are registered each step, and A and B are repeated for every
token before the products. Its dropout is left out, so that results can be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from hypergen.generators import TextToLoRA
from hypergen.specs import LoRASpec

Pairs = dict[str, tuple[Tensor, Tensor]]


class Peer(nn.Module):
    """Text-to-LoRA's largest head, a linear layer for each type of module.

    Args:
        generator: Ours, `size="L"`, whose numbers are copied; the trunk is shared.
    """

    def __init__(self, generator: TextToLoRA) -> None:
        super().__init__()
        spec = generator.spec
        assert isinstance(spec, LoRASpec)
        self.spec, self.task, self.trunk = spec, generator.task, generator.trunk
        self.layer_embedding = generator.layer_embedding
        self.kind_embedding = generator.kind_embedding
        parts = (generator.mix_task, generator.mix_layer, generator.mix_kind)
        self.mixer = nn.Linear(sum(p.in_features for p in parts), parts[0].out_features)
        self.mixer.weight.data = torch.cat([p.weight.data for p in parts], 1)
        self.mixer.bias.data = parts[0].bias.data + generator.part_embedding.weight.data[0]
        self.paths: dict[str, list[str]] = {}  # type of module → paths, by layer
        for path in spec.modules:
            self.paths.setdefault(path.rpartition(".")[2], []).append(path)
        self.layers = torch.arange(len(next(iter(self.paths.values()))))
        self.heads, self.offsets = nn.ModuleDict(), nn.ParameterDict()
        start = spec.from_flat(generator.offset.data[None])
        for kind, paths in self.paths.items():
            names = [spec.pair_names(path) for path in paths]
            groups = [spec.location[name][0] for name in names[0]]
            scales = [generator.scale[spec.groups[g].start] for g in groups]
            weight = torch.cat(
                [generator.head[g].data * s for g, s in zip(groups, scales, strict=True)], 1
            )
            self.heads[kind] = nn.Linear(len(weight), len(weight.T), bias=False)
            self.heads[kind].weight.data = weight.T.contiguous()
            for i, letter in enumerate("AB"):
                stack = torch.cat([start[name[i]] for name in names])
                self.offsets[f"{kind}_{letter}"] = nn.Parameter(stack)

    def deltas(self, layers: Tensor, kind: str, encoded: Tensor) -> tuple[Tensor, Tensor]:
        """A `[n, r, in]` and B `[n, out, r]` of one type of module, a row for each layer index."""
        number = torch.tensor([list(self.paths).index(kind)])
        place = self.layer_embedding(layers)
        kinds = self.kind_embedding(number).expand(len(layers), -1)
        features = self.trunk(self.mixer(torch.cat([encoded, place, kinds], -1)))
        offset_a, offset_b = self.offsets[f"{kind}_A"], self.offsets[f"{kind}_B"]
        a, b = self.heads[kind](features).split((offset_a[0].numel(), offset_b[0].numel()), -1)
        a = a.reshape(len(layers), *offset_a.shape[1:]) + offset_a[layers]
        b = b.reshape(len(layers), -1, offset_b.shape[1]).transpose(-1, -2) + offset_b[layers]
        return a, b

    @torch.no_grad()
    def generate(self, pooled: Tensor) -> list[dict[str, Tensor]]:
        """A state dict for each task, one after the other, as its scripts call `gen_lora`."""
        return [self._generate_one(self.task(embedded)) for embedded in pooled.split(1)]

    def _generate_one(self, encoded: Tensor) -> dict[str, Tensor]:
        state: dict[str, Tensor] = {}
        tiled = encoded.expand(len(self.layers), -1)
        for kind, (a, b) in {k: self.deltas(self.layers, k, tiled) for k in self.paths}.items():
            for layer in self.layers:
                name_a, name_b = self.spec.pair_names(self.paths[kind][layer])
                state[name_a] = a[layer].cpu().contiguous()
                state[name_b] = b[layer].cpu().contiguous()
        return state

    def pairs(self, pooled: Tensor, samples: int) -> Pairs:
        """Path → A and B of every sample, differentiable; `samples` of each task."""
        out: Pairs = {}
        encoded = self.task(pooled)
        count = len(self.layers)
        layers = self.layers.repeat_interleave(len(pooled))
        for kind, paths in self.paths.items():
            both = self.deltas(layers, kind, encoded.tile(count, 1))
            a, b = (t.unflatten(0, (count, -1)).repeat_interleave(samples, 1) for t in both)
            out |= {path: (a[i], b[i]) for i, path in enumerate(paths)}
        return out


@contextmanager
def per_token(model: nn.Module, spec: LoRASpec, pairs: Pairs) -> Iterator[None]:
    """Adapts a model by hooks of this step that repeat A and B for every token."""
    handles = [
        model.get_submodule(path).register_forward_hook(_repeating(a, b, spec.scaling(path)))
        for path, (a, b) in pairs.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _repeating(a: Tensor, b: Tensor, scaling: float) -> Callable[..., Tensor]:
    def hook(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        x = args[0]
        rows, tokens = x.shape[:2]
        a_tokens = a.mT.repeat_interleave(tokens, dim=0)
        b_tokens = b.mT.repeat_interleave(tokens, dim=0)
        delta = torch.bmm(torch.bmm(x.reshape(rows * tokens, 1, -1), a_tokens), b_tokens) * scaling
        return output + delta.reshape(rows, tokens, -1)

    return hook
