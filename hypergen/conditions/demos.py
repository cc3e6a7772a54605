"""Demonstrations → tokens: pairs of input and output, in any number and any order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, TypeVar

import torch
from torch import Tensor, nn

from hypergen._utils.errors import ConditionError
from hypergen.conditions.base import Condition, ConditionEncoder
from hypergen.conditions.consistency import SIGNALS, consistency

Pair = tuple[str, str]
Read = TypeVar("Read")

_KINDS = ("input", "output", "pair")


class DemoEncoder(ConditionEncoder):
    """A set of demonstrations, each as a few tokens made from frozen sentence embeddings.

    Few-shot demonstrations as the condition of a hypernetwork: Phang et al., "HyperTuning", ICML
    2023, arXiv:2211.12485. There a T5 that is trained along reads them as one sequence; here every
    pair is read by itself by a frozen encoder, so that a pair is encoded once, however often it is
    drawn, and learned linear maps take it on. Nothing says at which place a pair stood: the
    condition is one of a set, the same bytes for every order (pairs are sorted first). A pair that
    is given twice counts twice.

    Tokens of a pair: its input, its output, and the pair as a whole (input, output and the text of
    both), told apart by their maps and learned marks. With `tokens="words"` the words of input and
    output instead of one vector each; every one carries a map of its pair's embedding, which says
    what belongs together. A text that is longer than the frozen encoder takes is read as far as it
    goes. `pooled` is the mean over pairs of the vectors of `tokens="pooled"`.

    `signals` of the condition say whether the demonstrations agree, see
    `hypergen.conditions.consistency`.

    Args:
        encoder: The frozen encoder of texts, or its `to_dict`.
        dim: Width of the tokens; the encoder's own when not given.
        tokens: `"pooled"`, three tokens a pair, or `"words"`.
        cache_size: Texts whose embeddings are kept in memory.

    Raises:
        ConditionError: The encoder is trained, or not one of texts; or an option is unknown.
    """

    input_name: ClassVar[str] = "demos"
    signal_names = SIGNALS

    def __init__(
        self,
        encoder: ConditionEncoder | dict[str, Any],
        dim: int | None = None,
        tokens: Literal["pooled", "words"] = "pooled",
        cache_size: int = 100_000,
    ) -> None:
        super().__init__()
        if isinstance(encoder, dict):
            encoder = ConditionEncoder.from_dict(encoder)
        if encoder.input_name != "text":
            raise ConditionError(f"DemoEncoder reads texts, not {encoder.input_name}")
        if any(p.requires_grad for p in encoder.parameters()):
            raise ConditionError("DemoEncoder keeps embeddings: freeze the encoder of texts")
        if tokens not in ("pooled", "words"):
            raise ConditionError(f"tokens is {tokens!r}: use 'pooled' or 'words'")
        if dim is not None and dim < 1:
            raise ConditionError(f"dim must be at least 1, not {dim}")
        width = encoder.dim
        self.encoder, self.tokens, self.cache_size = encoder, tokens, cache_size
        self._dim = width if dim is None else dim
        self.maps = nn.ModuleDict(
            {
                "input": nn.Linear(width, self._dim),
                "output": nn.Linear(width, self._dim),
                "pair": nn.Linear(3 * width, self._dim),
            }
        )
        if tokens == "words":
            self.maps["belongs"] = nn.Linear(width, self._dim, bias=False)
        for part in self.maps.values():
            # Orthogonal, so that texts that are alike stay alike.
            nn.init.orthogonal_(part.weight)  # type: ignore[arg-type]
            if part.bias is not None:
                nn.init.zeros_(part.bias)  # type: ignore[arg-type]
        self.marks = nn.Parameter(0.02 * torch.randn(len(_KINDS), self._dim))
        self._cache: dict[str, Tensor] = {}

    @property
    def dim(self) -> int:
        """Width D of the tokens."""
        return self._dim

    def config(self) -> dict[str, Any]:
        """Constructor arguments that change the result."""
        return {"encoder": self.encoder.to_dict(), "dim": self._dim, "tokens": self.tokens}

    def forward(self, inputs: Any) -> Condition:
        """Encodes demonstrations.

        Args:
            inputs: A list for each of B conditions, or one such list: of mappings with `input` and
                `output` (of several outputs the first), or of tuples of both.

        Returns:
            Tokens `[B, 3 · K, dim]` for at most K pairs, or one for each word and pair.

        Raises:
            ConditionError: No demonstrations, or one without an input or output that is a text;
                says which.
        """
        batch = check_demos(inputs)
        pairs = [pair for demos in batch for pair in sorted(demos)]
        device = self.marks.device
        count = torch.tensor([len(demos) for demos in batch])
        row = torch.arange(len(batch)).repeat_interleave(count)
        place = torch.arange(len(pairs)) - (count.cumsum(0) - count)[row]
        mask = (torch.arange(int(count.max())) < count[:, None]).to(device)
        vectors = self.vectors(pairs).to(device)
        tokens = self._pooled_tokens(vectors)
        row, place = row.to(device), place.to(device)

        def padded(values: Tensor) -> Tensor:
            return values.new_zeros(*mask.shape, *values.shape[1:]).index_put((row, place), values)

        own = padded(tokens)  # [B, K, 3, dim]
        pooled = own.mean(2).sum(1) / mask.sum(1, keepdim=True)
        raw = padded(vectors)
        signals = consistency(raw[:, :, 0], raw[:, :, 1], mask)
        if self.tokens == "words":
            words = self._word_tokens(pairs, row, tokens[:, 2], vectors[:, 2], len(batch))
            return Condition(*words, pooled, signals)
        return Condition(own.flatten(1, 2), mask.repeat_interleave(3, 1), pooled, signals)

    def _pooled_tokens(self, vectors: Tensor) -> Tensor:
        """`[P, 3, D]` embeddings of input, output and both → `[P, 3, dim]`."""
        made = (
            self.maps["input"](vectors[:, 0]),
            self.maps["output"](vectors[:, 1]),
            self.maps["pair"](vectors.flatten(1)),
        )
        return torch.stack(made, 1) + self.marks

    def _word_tokens(
        self, pairs: Sequence[Pair], row: Tensor, whole: Tensor, both: Tensor, size: int
    ) -> tuple[Tensor, Tensor]:
        """The words of all pairs and a token for each pair.

        Args:
            pairs: `P` pairs.
            row: `[P]`, which condition each belongs to; rising.
            whole: `[P, dim]`, the pairs' own tokens.
            both: `[P, D]`, embeddings of the texts of both.
            size: Number B of conditions.

        Returns:
            `[B, T, dim]` and the mask `[B, T]`.
        """
        texts = list(dict.fromkeys(text for pair in pairs for text in pair))
        number = {text: i for i, text in enumerate(texts)}
        which = torch.tensor([number[text] for pair in pairs for text in pair]).to(row.device)
        read = Condition.cat(_as_far_as_it_goes(self.encoder, texts)).to(row.device)
        length = read.mask.sum(1)[which]
        owner = torch.arange(len(which), device=row.device).repeat_interleave(length)
        within = torch.arange(len(owner), device=row.device) - (length.cumsum(0) - length)[owner]
        words = read.tokens[which[owner], within]
        is_output = (owner % 2 == 1)[:, None]
        marked = torch.where(
            is_output,
            self.maps["output"](words) + self.marks[1],
            self.maps["input"](words) + self.marks[0],
        )
        pair = torch.div(owner, 2, rounding_mode="floor")
        marked = marked + self.maps["belongs"](both)[pair]
        # A condition's tokens: those of its pairs, then the words of all of them, in their order.
        belongs = torch.cat([row, row[pair]])
        order = belongs.argsort(stable=True)
        belongs, tokens = belongs[order], torch.cat([whole, marked])[order]
        count = torch.bincount(belongs, minlength=size)
        at = torch.arange(len(belongs), device=row.device) - (count.cumsum(0) - count)[belongs]
        mask = torch.arange(int(count.max()), device=row.device) < count[:, None]
        out = tokens.new_zeros(*mask.shape, tokens.shape[1])
        return out.index_put((belongs, at), tokens), mask

    # -- the frozen part -----------------------------------------------------------------------

    def vectors(self, pairs: Sequence[Pair]) -> Tensor:
        """Frozen embeddings of input, output and both, `[P, 3, D]`."""
        return self.embeddings(texts_of(pairs)).unflatten(0, (len(pairs), 3))

    @torch.no_grad()
    def embeddings(self, texts: Sequence[str]) -> Tensor:
        """Frozen embeddings of texts, `[n, D]`; each different text is encoded once."""
        fresh: dict[str, Tensor] = {}
        missing = [text for text in dict.fromkeys(texts) if text not in self._cache]
        if missing:
            # By length: those that are too long are then neighbours.
            missing.sort(key=lambda text: (len(text), text))
            made = torch.cat(_as_far_as_it_goes(self.encoder.embed, missing)).detach().cpu()
            fresh = dict(zip(missing, made, strict=True))
            self.remember(fresh)
        found = [fresh[text] if text in fresh else self._cache[text] for text in texts]
        return torch.stack(found)

    def remember(self, embeddings: Mapping[str, Tensor]) -> None:
        """Keeps embeddings `[D]` of texts, up to `cache_size` of them."""
        for text, vector in embeddings.items():
            if len(self._cache) >= self.cache_size:
                break
            # A copy: a row of a large table would keep all of it.
            self._cache.setdefault(text, vector.detach().cpu().clone())


def _as_far_as_it_goes(read: Callable[[list[str]], Read], texts: list[str]) -> list[Read]:
    """What `read` makes of texts, part by part; one that it does not take whole is cut.

    Halving finds the few that are too long, and leaves the others together.
    """
    try:
        return [read(texts)]
    except ConditionError:
        if len(texts) > 1:
            half = len(texts) // 2
            return _as_far_as_it_goes(read, texts[:half]) + _as_far_as_it_goes(read, texts[half:])
        text = texts[0]
        if len(text) < 2:
            raise
        # A little at a time, and never to nothing.
        return _as_far_as_it_goes(read, [text[: int(0.9 * len(text))].rstrip() or text[:1]])


def texts_of(pairs: Sequence[Pair]) -> list[str]:
    """What is embedded of pairs: input, output and both of each, `[3 · P]` texts."""
    return [text for pair in pairs for text in (*pair, joined(pair))]


def joined(pair: Pair) -> str:
    """The text of a pair; what is cut where it is too long is the end of the input."""
    return f"Output: {pair[1]} Input: {pair[0]}"


def check_demos(inputs: Any) -> list[list[Pair]]:
    """Checks demonstrations and reads them as pairs of texts.

    Args:
        inputs: See `DemoEncoder.forward`.

    Raises:
        ConditionError: Otherwise; says which demonstration of which input (both from 0).
    """
    if isinstance(inputs, (str, Mapping)) or not isinstance(inputs, Sequence):
        raise ConditionError(
            f"demonstrations are a list of objects with input and output, not a "
            f"{type(inputs).__name__}"
        )
    if inputs and isinstance(inputs[0], (Mapping, tuple)):
        inputs = [inputs]
    if not inputs:
        raise ConditionError("no demonstrations given: pass at least one")
    batch = []
    for number, demos in enumerate(inputs):
        if isinstance(demos, (str, Mapping)) or not isinstance(demos, Sequence):
            raise ConditionError(
                f"input {number} is a {type(demos).__name__}, not a list of demonstrations"
            )
        if not demos:
            raise ConditionError(f"input {number} has no demonstrations: give at least one")
        batch.append([check_pair(demo, i, number) for i, demo in enumerate(demos)])
    return batch


def check_pair(demo: Any, position: int, number: int) -> Pair:
    """One demonstration as a pair of texts, stripped.

    Args:
        demo: An object with `input` and `output` (of several accepted outputs the first counts), or
            a tuple of both.
        position: Its number among the demonstrations of its input, for messages.
        number: The number of that input, for messages.

    Raises:
        ConditionError: It is neither, or a text is missing, empty or none.
    """
    name = f"demonstration {position} of input {number}"
    if isinstance(demo, tuple) and len(demo) == 2:
        demo = {"input": demo[0], "output": demo[1]}
    if not isinstance(demo, Mapping):
        raise ConditionError(
            f"{name} is a {type(demo).__name__}, not an object with input and output"
        )
    texts = []
    for key in ("input", "output"):
        if key not in demo:
            raise ConditionError(f"{name} has no {key!r}")
        value = demo[key]
        if key == "output" and isinstance(value, (list, tuple)):
            if not value:
                raise ConditionError(f"{name} has an empty list as its output")
            value = value[0]
        if not isinstance(value, str):
            raise ConditionError(f"the {key} of {name} is a {type(value).__name__}, not a text")
        if not value.strip():
            raise ConditionError(f"the {key} of {name} is empty")
        texts.append(value.strip())
    return texts[0], texts[1]
