"""Reads a context with a frozen model and keeps the keys and values that matter most."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from hypergen._utils.errors import ConditionError
from hypergen._utils.fingerprint import model_fingerprint
from hypergen._utils.language_models import load_language_model

# What the model is asked after a context, to see which of its tokens are looked at: questions that
# any text can be asked, then the text itself again.
QUESTIONS = (
    "\n\nQuestion: Who is in it?\nAnswer:\n\nQuestion: What happens first?\nAnswer:"
    "\n\nQuestion: Where is it?\nAnswer:\n\nQuestion: Why?\nAnswer:"
    "\n\nQuestion: How does it end?\nAnswer: When? Which one? How many?\n\nAgain: "
)


@dataclass(frozen=True)
class Kept:
    """What is kept of a context.

    Attributes:
        keys: `[layers, kv_heads, tokens, head_dim]`, before the rotation by their position.
        values: `[layers, kv_heads, tokens, head_dim]`.
        scores: `[layers, kv_heads, tokens]`, attention paid to each.
    """

    keys: Tensor
    values: Tensor
    scores: Tensor


class CacheReader:
    """A frozen causal language model that reads contexts; loaded at the first use.

    Not a module: the model is named and fingerprinted by the generators that use it, not saved.

    Args:
        model: As for `load_language_model`.
        dtype: Dtype of the model.
        chunk_size: Most tokens read at a time.
        reduce: How the attention paid to a token becomes its score.
        loaded: Model and tokenizer, if there already.
    """

    def __init__(
        self,
        model: str,
        dtype: str,
        chunk_size: int,
        reduce: Literal["mean", "max"],
        loaded: tuple[Any, Any] | None = None,
    ) -> None:
        self.name, self.dtype = model, dtype
        self.chunk_size, self.reduce = chunk_size, reduce
        self._loaded = loaded
        self._fingerprint: str | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> CacheReader:
        return self  # it has no state of its own: copies of a generator may share the model

    @property
    def model(self) -> Any:
        """The frozen model."""
        return self._parts()[0]

    def _parts(self) -> tuple[Any, Any]:
        if self._loaded is None:
            found = load_language_model(
                self.name, kind="causal", dtype=self.dtype, attention="eager"
            )
            self._loaded = found.model, found.tokenizer
        return self._loaded

    @property
    def fingerprint(self) -> str:
        """Identity of the weights."""
        if self._fingerprint is None:
            self._fingerprint = model_fingerprint(self.model)
        return self._fingerprint

    @property
    def shape(self) -> tuple[int, int, int]:
        """Layers, key-value heads and width of a head."""
        config = self.model.config.get_text_config()
        heads = config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // heads
        kv_heads = getattr(config, "num_key_value_heads", None) or heads
        return config.num_hidden_layers, kv_heads, width

    @torch.no_grad()
    def rotation(self, count: int, device: Any = None) -> Tensor:
        """Cosines and sines of positions 0 … count-1: `[2, count, head_dim]`.

        Ones and zeros for models without rotary positions and for the part of a head that is not
        rotated.
        """
        width = self.shape[2]
        out = torch.stack([torch.ones(count, width), torch.zeros(count, width)]).to(device)
        rotary = _rotary(self.model)
        if rotary is not None:
            at = torch.arange(count, device=self.model.device)[None]
            probe = torch.zeros(1, 1, count, width, device=self.model.device)
            for i, part in enumerate(rotary(probe, at)):
                out[i, :, : part.shape[-1]] = part[0].float().to(out.device)
        return out

    def ids(self, text: str) -> Tensor:
        """Tokens of a context, `[n]`, with what the tokenizer puts before a text."""
        return torch.tensor(self._parts()[1](text, add_special_tokens=True)["input_ids"])

    def fill(self, rows: list[Tensor], slots: int) -> list[Kept]:
        """Reads contexts of at most `slots` tokens, each repeated until it has as many.

        All have one length then, and are read together. The copies end with a whole one, next to
        what follows; the first token stays first.

        Args:
            rows: Tokens of each.
            slots: Tokens of a result.
        """
        if not rows:
            return []
        full = [torch.cat([r[:1], r.repeat(-(-slots // len(r)))[1 - slots :]]) for r in rows]
        keys, values, _ = self._run(torch.stack(full), slots, False)
        scores = torch.zeros(keys.shape[1:-1])
        return [Kept(k, v, scores) for k, v in zip(keys, values, strict=True)]

    def read(self, ids: Tensor, slots: int) -> Kept:
        """Reads one context and keeps `slots` tokens of each head of each layer.

        Args:
            ids: Its tokens `[n]`, see `ids`.
            slots: Tokens to keep.

        Raises:
            ConditionError: The model's keys cannot be told from their positions.
        """
        if len(ids) <= slots:
            return self.fill([ids], slots)[0]
        probe = torch.tensor(self._parts()[1](QUESTIONS, add_special_tokens=False)["input_ids"])
        # A chunk stands twice beside the questions.
        limit = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        room = self.chunk_size if limit is None else (limit - len(probe)) // 2
        if room < 1:
            raise ConditionError(f"{self.name} takes {limit} tokens: too few to choose among them")
        kept: Kept | None = None
        # Chunks of one size: the attention paid to a token is a share of that to its chunk.
        for chunk in ids.tensor_split(-(-len(ids) // min(self.chunk_size, room))):
            new = _best(self._chunk(chunk, torch.cat([probe, chunk])), slots, kept is None)
            kept = new if kept is None else _best(_join(kept, new), slots, True)
        assert kept is not None
        return kept

    def _chunk(self, ids: Tensor, probe: Tensor) -> Kept:
        """Keys and values of a chunk's tokens, and the attention that the probe pays to them."""
        keys, values, attentions = self._run(torch.cat([ids, probe])[None], len(ids), True)
        groups = keys.shape[2]
        scores = []
        for attention in attentions:
            paid = attention[0, :, len(ids) :, : len(ids)].float().unflatten(0, (groups, -1))
            scores.append(paid.mean((1, 2)) if self.reduce == "mean" else paid.amax((1, 2)))
        return Kept(keys[0], values[0], torch.stack(scores).cpu())

    @torch.no_grad()
    def _run(self, ids: Tensor, count: int, look: bool) -> tuple[Tensor, Tensor, Any]:
        """Unrotated keys, and values, of the first `count` of `[B, n]` tokens; and attentions.

        Returns:
            Keys and values `[B, layers, kv_heads, count, head_dim]` on the CPU, and with `look`
            the attention `[B, heads, n, n]` of every layer.
        """
        model = self.model
        with (
            _eager(model) if look else nullcontext(),
            torch.autocast(model.device.type, enabled=False),
        ):
            out = model.base_model(
                input_ids=ids.to(model.device), use_cache=True, output_attentions=look
            )
        layers = _layers(out)
        keys = torch.stack([key[:, :, :count] for key, _ in layers], 1).float()
        values = torch.stack([value[:, :, :count] for _, value in layers], 1)
        if keys.shape[3] != count:
            raise ConditionError(
                f"{self.name} keeps {keys.shape[3]} of {count} tokens (sliding window): lower "
                "chunk_size"
            )
        keys = unrotate(keys, self.rotation(count, keys.device)).to(values.dtype)
        return keys.cpu(), values.cpu(), out.attentions if look else None


def _best(kept: Kept, slots: int, first: bool) -> Kept:
    """The tokens of the highest score of each head, in their order; the first one with `first`."""
    scores = kept.scores.clone()
    if scores.shape[2] <= slots:
        return kept
    if first:
        scores[:, :, 0] = torch.inf
    # A stable order: ties go to the earlier token, on every machine.
    chosen = scores.argsort(dim=2, descending=True, stable=True)[:, :, :slots].sort(2).values
    wide = chosen[..., None].expand(*chosen.shape, kept.keys.shape[-1])
    return Kept(
        kept.keys.gather(2, wide), kept.values.gather(2, wide), kept.scores.gather(2, chosen)
    )


def _join(a: Kept, b: Kept) -> Kept:
    """The tokens of two chunks one after the other."""
    pairs = ((a.keys, b.keys), (a.values, b.values), (a.scores, b.scores))
    return Kept(*(torch.cat(pair, 2) for pair in pairs))


def rotate(keys: Tensor, rotation: Tensor) -> Tensor:
    """Turns keys `[…, tokens, head_dim]` by `rotation` `[2, tokens, head_dim]`.

    Su et al., "RoFormer", arXiv:2104.09864, in the form of Llama and its kin: the two halves of
    the rotated part of a head belong together.
    """
    cos, sin = rotation
    return keys * cos + _half(keys, sin) * sin


def unrotate(keys: Tensor, rotation: Tensor) -> Tensor:
    """The inverse of `rotate`, also of one that scales (YaRN)."""
    cos, sin = rotation
    return (keys * cos - _half(keys, sin) * sin) / (cos * cos + sin * sin)


def _half(x: Tensor, sin: Tensor) -> Tensor:
    # Only the leading part of a head may be rotated: behind it all sines are zero.
    used = (sin != 0).any(0).nonzero()
    part = int(used[-1]) + 1 if len(used) else 0
    a, b = x[..., :part].chunk(2, dim=-1) if part else (x[..., :0], x[..., :0])
    return torch.cat([-b, a, x[..., part:]], -1)


def _rotary(model: nn.Module) -> Any:
    """The module that makes the cosines and sines of positions; None without any."""
    found = [
        (module, frequencies)
        for module in model.modules()
        if isinstance(frequencies := getattr(module, "inv_freq", None), Tensor)
    ]
    if not found:
        return None
    if len({tuple(frequencies.tolist()) for _, frequencies in found}) > 1:
        raise ConditionError(
            f"{type(model).__name__} rotates its layers differently: contexts cannot be moved"
        )
    return found[0][0]


def _layers(out: Any) -> list[tuple[Tensor, Tensor]]:
    """Keys and values of every layer of a transformers output."""
    cache = getattr(out, "cache", None)
    cache = out.past_key_values if cache is None else cache
    layers = getattr(cache, "layers", None)
    if layers is not None:
        return [(layer.keys, layer.values) for layer in layers]
    return [(pair[0], pair[1]) for pair in cache]


@contextmanager
def _eager(model: Any) -> Iterator[None]:
    """With the attention that tells where it looks; the model's own afterwards."""
    before = getattr(model.config, "_attn_implementation", "eager")
    if before == "eager":
        yield
        return
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)
