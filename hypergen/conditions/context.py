r"""Text, demonstrations and documents as the keys and values that a frozen model makes of them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from hypergen._utils.errors import ConditionError
from hypergen._utils.progress import progress
from hypergen.conditions.base import Condition, ConditionEncoder
from hypergen.conditions.cache import CacheReader, Kept
from hypergen.conditions.demos import check_pair

KINDS = ("text", "demos", "document")
BATCH = 16  # contexts of one length that are read together


class ContextEncoder(ConditionEncoder):
    r"""Keys and values of a context in a frozen causal language model, cut to `slots` tokens.

    The context is one text: the description, the demonstrations as `Input: …\nOutput: …`, and the
    document, as far as they are given, with blank lines between. Of its tokens, every head of every
    layer keeps the `slots` ones that are attended to most when the model reads general questions
    and the context once more behind it: Kim et al., "KVzip: Query-Agnostic KV Cache Compression
    with Context Reconstruction", NeurIPS 2025, arXiv:2505.23416. The first token, where attention
    rests, always stays. A context of fewer tokens is repeated until it fills the slots. Of
    demonstrations only as many are read as fit into the slots, the first ones: half a
    demonstration teaches nothing. A document longer than `chunk_size` is read chunk by chunk,
    without attention from one to another, and only the best slots of all chunks are kept, so that
    memory does not grow with its length.

    A condition has `slots` tokens; each holds, for every layer, its key (before the rotation by its
    position) and its value, of every head: D = layers · 2 · kv_heads · head_dim. `ContextPrefix`
    makes a prefix of them. Contexts whose tokens are chosen are read one by one, so that no choice
    depends on the others of a batch; all are kept by their text.

    Args:
        model: Causal language model, as for `load_language_model`.
        slots: Number of tokens kept, `num_virtual_tokens` of the prefix.
        takes: Which raw input it takes: `"text"`, `"demos"` or `"document"`, or a mapping of them
            (`"fused"`).
        dtype: Dtype of the model.
        end: What stands between the context and what follows it.
        chunk_size: Most tokens read at a time.
        reduce: Whether a token's importance is the `"mean"` or the `"max"` of the attention paid
            to it.
        cache_size: Number of contexts kept in memory.
    """

    input_name: ClassVar[str] = "fused"

    def __init__(
        self,
        model: str = "smollm2",
        slots: int = 64,
        takes: Literal["text", "demos", "document", "fused"] = "fused",
        dtype: str = "float32",
        end: str = "\n\n",
        chunk_size: int = 1024,
        reduce: Literal["mean", "max"] = "mean",
        cache_size: int = 1024,
        *,
        loaded: tuple[Any, Any] | None = None,
    ) -> None:
        super().__init__()
        if takes not in (*KINDS, "fused"):
            raise ConditionError(f"takes is {takes!r}: use 'text', 'demos', 'document' or 'fused'")
        if not 2 <= slots <= chunk_size:
            raise ConditionError(f"slots is {slots}: use 2 to chunk_size ({chunk_size})")
        if reduce not in ("mean", "max"):
            raise ConditionError(f"reduce is {reduce!r}: use 'mean' or 'max'")
        self.takes, self.slots, self.end = takes, slots, end
        self.input_name = takes  # type: ignore[misc]  # of the instance: it says what it takes
        self.cache_size = cache_size
        self._config = {
            "model": model,
            "slots": slots,
            "takes": takes,
            "dtype": dtype,
            "end": end,
            "chunk_size": chunk_size,
            "reduce": reduce,
            "cache_size": cache_size,
        }
        self.reader = CacheReader(model, dtype, chunk_size, reduce, loaded)
        self._cache: dict[str, Tensor] = {}

    @classmethod
    def from_model(cls, model: Any, tokenizer: Any, /, **options: Any) -> ContextEncoder:
        """An encoder that reads with a model that is loaded already (a target's own base).

        Args:
            model: A transformers causal language model.
            tokenizer: Its tokenizer.
            **options: As for the class; `model` is the name recorded for later loading.
        """
        options.setdefault("model", getattr(model.config, "_name_or_path", "") or "model")
        return cls(loaded=(model, tokenizer), **options)

    @property
    def input_names(self) -> tuple[str, ...]:
        """All kinds of context, or the one that it takes."""
        return KINDS if self.takes == "fused" else (self.takes,)

    @property
    def dim(self) -> int:
        """Width D of the tokens: layers · 2 · kv_heads · head_dim."""
        layers, heads, width = self.shape
        return layers * 2 * heads * width

    @property
    def shape(self) -> tuple[int, int, int]:
        """Layers, key-value heads and width of a head."""
        return self.reader.shape

    @property
    def fingerprint(self) -> str:
        """Identifies the model's weights."""
        return self.reader.fingerprint

    def config(self) -> dict[str, Any]:
        """Constructor arguments, JSON-serialisable."""
        return dict(self._config)

    def rotation(self) -> Tensor:
        """Cosines and sines that rotate the kept keys to positions 0 … slots-1.

        Returns:
            `[2, slots, head_dim]`.
        """
        return self.reader.rotation(self.slots)

    def forward(self, inputs: Any) -> Condition:
        """Reads a batch of contexts.

        Args:
            inputs: A list of inputs of the kind that `takes` says, or a mapping kind → list, whose
                items may be None (or an empty list of demonstrations) where a context lacks them.

        Raises:
            ConditionError: A context is empty, or an input is of another kind; names its number.
        """
        texts = self.contexts(inputs)
        new = [text for text in dict.fromkeys(texts) if text not in self._cache]
        ids = {text: self.reader.ids(text) for text in new}
        short = [text for text in new if len(ids[text]) <= self.slots]
        made: dict[str, Tensor] = {}
        many = len(new) > 50
        with progress(total=len(new), desc="contexts") if many else nullcontext() as bar:
            for at in range(0, len(short), BATCH):
                part = short[at : at + BATCH]
                kept = self.reader.fill([ids[text] for text in part], self.slots)
                made |= {text: self._keep(k) for text, k in zip(part, kept, strict=True)}
                if bar is not None:
                    bar.update(len(part))
            for text in new:
                if text not in made:
                    made[text] = self._keep(self.reader.read(ids[text], self.slots))
                    if bar is not None:
                        bar.update()
        found = {text: made[text] if text in made else self._cache[text] for text in texts}
        for text, tokens in made.items():
            while self._cache and len(self._cache) >= self.cache_size:
                self._cache.pop(next(iter(self._cache)))
            if self.cache_size:
                self._cache[text] = tokens
        return Condition.from_tokens(torch.stack([found[text] for text in texts]).float())

    def _keep(self, kept: Kept) -> Tensor:
        """`[slots, D]` of one context; half precision where the model computes in it."""
        both = torch.stack([kept.keys, kept.values], 1)  # [layers, 2, heads, slots, width]
        return both.permute(3, 0, 1, 2, 4).flatten(1).contiguous()

    def contexts(self, inputs: Any) -> list[str]:
        """The texts that are read, one for each row of the batch; see `forward`."""
        given = inputs if self.takes == "fused" else {self.takes: inputs}
        if not isinstance(given, Mapping) or not given:
            raise ConditionError(f"this encoder takes a mapping of {', '.join(KINDS)}")
        for kind in given:
            if kind not in KINDS:
                raise ConditionError(f"this encoder takes {', '.join(KINDS)}, not {kind!r}")
        columns = {kind: _rows(kind, given[kind]) for kind in KINDS if given.get(kind) is not None}
        sizes = {len(rows) for rows in columns.values()}
        if len(sizes) != 1:
            said = ", ".join(f"{len(rows)} {kind}" for kind, rows in columns.items())
            raise ConditionError(f"inputs of one batch differ in number: {said or 'none given'}")
        texts = []
        for i in range(sizes.pop()):
            own = {kind: _parts(kind, rows[i], i) for kind, rows in columns.items()}
            if not any(own.values()):
                raise ConditionError(f"context {i} is empty: give a text, demos or a document")
            texts.append(self._joined(own))
        return texts

    def _joined(self, parts: dict[str, list[str]]) -> str:
        """One text of the parts, without the demonstrations that the slots have no room for."""

        def joined(shown: int) -> str:
            demos = parts.get("demos", [])[:shown]
            own = [*parts.get("text", []), *demos, *parts.get("document", [])]
            return "\n\n".join(own) + self.end

        count = len(parts.get("demos", []))
        text = joined(count)
        # Beside a document tokens are chosen in any case.
        if count < 2 or parts.get("document") or len(self.reader.ids(text)) <= self.slots:
            return text
        # More demonstrations are more tokens: the most that fit, by halving.
        fits, over = 1, count
        while over - fits > 1:
            middle = (fits + over) // 2
            if len(self.reader.ids(joined(middle))) <= self.slots:
                fits = middle
            else:
                over = middle
        return joined(fits)


def _rows(kind: str, rows: Any) -> list[Any]:
    """A column of the batch as a list; one item alone stands for a batch of one."""
    if isinstance(rows, str):
        return [rows]
    rows = list(rows)
    if kind == "demos" and rows and isinstance(rows[0], Mapping):
        return [rows]
    return rows


def _parts(kind: str, item: Any, row: int) -> list[str]:
    """What one input adds to a context."""
    if item is None:
        return []
    if kind != "demos":
        if not isinstance(item, str) or not item.strip():
            raise ConditionError(f"{kind} {row} is empty or no string")
        return [item.strip()]
    pairs = (check_pair(demo, number, row) for number, demo in enumerate(item))
    return [f"Input: {given}\nOutput: {answer}" for given, answer in pairs]
