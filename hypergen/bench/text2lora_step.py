"""One training step of Text-to-LoRA through a frozen language model, in several ways."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hypergen.bench.text2lora_peer import Peer, per_token
from hypergen.conditions import Condition, TaskEncoder
from hypergen.generators import TextToLoRA
from hypergen.specs import LoRASpec
from hypergen.targets import LoRATarget
from hypergen.zoo.language.answers import answer_only

WAYS = ("ours", "reference", "reference, logits at labels", "bound")
CHECKPOINTED = "ours, checkpointed"  # a way of its own: less memory for more time


@dataclass(frozen=True)
class Sizes:
    """Shapes of a language model like SmolLM2-135M, its adapters and a batch.

    Attributes:
        layers: Decoder layers; the real model has 30.
        hidden: Width.
        heads: Attention heads.
        kv_heads: Heads of keys and values.
        mlp: Width of the gated layer.
        vocabulary: Tokens that the output layer tells apart.
        rank: Rank of the adapters of `q_proj` and `v_proj`.
        features: Width of the generator's trunk.
        condition: Width of an embedded description.
        tasks: Descriptions of a batch.
        samples: Samples of each task.
        tokens: Length of a sample.
        answer: Labelled tokens at its end.
    """

    layers: int = 6
    hidden: int = 576
    heads: int = 9
    kv_heads: int = 3
    mlp: int = 1536
    vocabulary: int = 49152
    rank: int = 8
    features: int = 256
    condition: int = 384
    tasks: int = 8
    samples: int = 2
    tokens: int = 64
    answer: int = 4


def language_model(sizes: Sizes) -> Any:
    """A frozen Llama with random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=sizes.hidden,
        intermediate_size=sizes.mlp,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.kv_heads,
        vocab_size=sizes.vocabulary,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).eval().requires_grad_(False)


def make_generator(spec: LoRASpec, sizes: Sizes) -> tuple[TextToLoRA, Condition]:
    """A generator whose adapters differ from task to task, and a condition for every task.

    The heads of a fresh one are zero, and so is B: ways that compute something else would agree.
    """
    encoder = TaskEncoder(sizes.tasks, dim=sizes.condition)
    generator = TextToLoRA(spec, encoder, size="L", hidden=sizes.features)
    for weight in generator.head:
        nn.init.normal_(weight, std=sizes.features**-0.5)
    noise = torch.randn_like(generator.offset) * spec.per_entry("scale")
    generator.offset.data += noise
    return generator, encoder(torch.arange(sizes.tasks)).detach()


class Step:
    """The same loss and gradients in every way of `WAYS` but the bound, which has no adapters.

    Args:
        sizes: The shapes.
    """

    def __init__(self, sizes: Sizes) -> None:
        torch.manual_seed(0)
        self.sizes = sizes
        self.model = answer_only(language_model(sizes))
        self.spec = LoRASpec(self.model, ["q_proj", "v_proj"], r=sizes.rank)
        self.generator, condition = make_generator(self.spec, sizes)
        self.condition = condition
        self.condition.pooled.requires_grad_()
        self.peer = Peer(self.generator)
        self.target = LoRATarget(self.model, self.spec)
        self.lean: LoRATarget | None = None  # made when asked for: its hooks cost every way time
        rows = sizes.tasks * sizes.samples
        self.ids = torch.randint(sizes.vocabulary, (rows, sizes.tokens))
        self.labels = self.ids.clone()
        self.labels[:, : -sizes.answer] = -100
        # The logits that predict a token stand one position before it.
        self.positions = torch.arange(-sizes.answer - 1, -1).expand(rows, -1)

    def way(self, name: str) -> Callable[[], Tensor]:
        """One forward and backward pass; returns the loss, leaves gradients behind."""
        loss = {
            "ours": self._ours,
            CHECKPOINTED: lambda: self._ours(checkpointed=True),
            "reference": self._reference,
            "reference, logits at labels": lambda: self._reference(logits_at_labels=True),
            "bound": self._frozen,
        }[name]

        def run() -> Tensor:
            self.generator.zero_grad()
            self.peer.zero_grad()
            self.condition.pooled.grad = None
            value = loss()
            value.backward()
            return value.detach()

        return run

    def gradients(self, name: str) -> dict[str, Tensor]:
        """Gradients that the way left: of the conditions, and of every slot's start."""
        pooled = self.condition.pooled.grad
        assert pooled is not None
        out = {"condition": pooled.clone()}
        if name in ("ours", CHECKPOINTED):
            assert self.generator.offset.grad is not None
            start = self.spec.from_flat(self.generator.offset.grad[None])
            return out | {n: start[n][0] for n in self.spec.names}
        for kind, paths in self.peer.paths.items():
            for i, letter in enumerate("AB"):
                grad = self.peer.offsets[f"{kind}_{letter}"].grad
                assert grad is not None
                names = [self.spec.pair_names(path)[i] for path in paths]
                out |= dict(zip(names, grad.clone(), strict=True))
        return out

    def check(self) -> None:
        """Compares losses and gradients.

        Raises:
            AssertionError: A way computes something else.
        """
        expected, gradients = self.way("ours")(), self.gradients("ours")
        for name in (CHECKPOINTED, *WAYS[1:-1]):
            torch.testing.assert_close(self.way(name)(), expected, rtol=1e-4, atol=1e-5)
            for slot, gradient in self.gradients(name).items():
                mine = gradients[slot]
                atol = 1e-3 * float(mine.abs().max())
                torch.testing.assert_close(gradient, mine, rtol=1e-3, atol=atol)

    def _answer_loss(self, logits: Tensor) -> Tensor:
        answers = self.ids[:, -self.sizes.answer :]
        return F.cross_entropy(logits.flatten(0, 1), answers.flatten())

    def _ours(self, checkpointed: bool = False) -> Tensor:
        inputs = {"input_ids": self.ids, "answer_positions": self.positions}
        target = self.target
        if checkpointed:
            target = self.lean = self.lean or LoRATarget(self.model, self.spec, checkpoint=True)
        return self._answer_loss(target(self.generator(self.condition), inputs))

    def _reference(self, logits_at_labels: bool = False) -> Tensor:
        pairs = self.peer.pairs(self.condition.pooled, self.sizes.samples)
        with per_token(self.model, self.spec, pairs):
            if logits_at_labels:
                logits = self.model(input_ids=self.ids, answer_positions=self.positions)
                return self._answer_loss(logits)
            logits = self.model(input_ids=self.ids, use_cache=False).logits
        shifted = logits[:, :-1].flatten(0, 1)
        return F.cross_entropy(shifted, self.labels[:, 1:].flatten(), ignore_index=-100)

    def _frozen(self) -> Tensor:
        """No adapters; gradients reach the outputs that the first layer's adapters add to."""
        first = [p for p in self.spec.modules if ".layers.0." in f".{p}"]
        modules = [self.model.get_submodule(path) for path in first]
        handles = [m.register_forward_hook(_leaf) for m in modules]
        try:
            logits = self.model(input_ids=self.ids, answer_positions=self.positions)
        finally:
            for handle in handles:
                handle.remove()
        return self._answer_loss(logits)


def _leaf(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
    return output.detach().requires_grad_()
