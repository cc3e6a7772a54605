"""What a window of plain text asks a generator for: conditions, and texts to predict with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from hypergen._utils.errors import UsageError, did_you_mean
from hypergen.conditions.pieces import pieces
from hypergen.zoo.language.branches import Branch, Tree
from hypergen.zoo.language.tokens import encode

MODES = ("caclm", "completion", "reconstruction")


@dataclass(frozen=True)
class Row:
    """A text that one network predicts.

    Attributes:
        condition: Number of the condition.
        chunk: The last chunk of it that the network knows; -1 for all of it.
        lead: Tokens that are shown.
        labels: Tokens that are predicted behind them.
        mode: What the text is for.
        follows: Whether the text goes on where the known part of the condition ends.
    """

    condition: int
    chunk: int
    lead: list[int]
    labels: list[int]
    mode: str
    follows: bool = False


@dataclass
class Asked:
    """Conditions, and the rows for them in the order of the conditions.

    Attributes:
        raw: Inputs of the encoder.
        contexts: Tokens of each, for a model that has it in its prompt.
        rows: What is predicted.
    """

    raw: list[Any] = field(default_factory=list)
    contexts: list[list[int]] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)


class RowMaker:
    """Cuts windows of tokens into conditions and rows.

    Args:
        tokenizer: Of the target.
        modes: Mode → how much it counts.
        takes: `input_name` of the encoder.
        chunk_size: Tokens of a chunk C.
        lead: Tokens shown before what is predicted, in `completion` and `reconstruction`.
        parts: Shares of A, B, C and D of a window in `caclm`.
        most_rows: Most rows of a window in `completion` and `reconstruction`; all when not given.

    Raises:
        UsageError: A mode is unknown or does not go with the encoder, or a number is out of range.
    """

    def __init__(
        self,
        tokenizer: Any,
        modes: Mapping[str, float],
        takes: str,
        chunk_size: int,
        lead: int = 1,
        parts: Sequence[float] = (0.25, 0.25, 0.25, 0.25),
        most_rows: int | None = None,
    ) -> None:
        for mode, weight in modes.items():
            if mode not in MODES:
                raise UsageError(f"there is no mode {mode!r}.{did_you_mean(mode, MODES)}")
            if weight < 0:
                raise UsageError(f"mode {mode!r} has the weight {weight}: it must not be negative")
        self.modes = {mode: weight for mode, weight in modes.items() if weight}
        if not self.modes:
            raise UsageError(f"no mode is left: choose from {', '.join(MODES)}")
        if takes not in ("document", "text", "demos", "fused"):
            raise UsageError(f"the encoder takes {takes!r}, not documents, texts or demonstrations")
        self.reads_chunks = bool(self.modes.keys() & {"completion", "reconstruction"})
        if takes == "demos" and self.reads_chunks:
            raise UsageError("an encoder of demonstrations goes with the mode 'caclm' alone")
        if chunk_size < 4 or lead < 1 or (most_rows is not None and most_rows < 1):
            raise UsageError("chunk_size must be at least 4, lead and most_rows at least 1")
        if len(parts) != 4 or min(parts) <= 0:
            raise UsageError(f"caclm_parts are the shares of A, B, C and D, not {list(parts)}")
        self.tokenizer, self.takes, self.chunk, self.lead = tokenizer, takes, chunk_size, lead
        self.parts, self.most_rows = [p / sum(parts) for p in parts], most_rows
        self.break_ = encode(tokenizer, ["\n\n"])[0]

    @property
    def least(self) -> int:
        """Fewest tokens of a window."""
        needs = {"caclm": 32, "completion": self.chunk + 8, "reconstruction": self.lead + 8}
        return max(needs[mode] for mode in self.modes)

    def make(
        self,
        windows: Sequence[Sequence[int]],
        generators: Sequence[torch.Generator],
        all_prefixes: bool,
    ) -> Asked:
        """Conditions and rows of windows.

        Args:
            windows: Tokens of each.
            generators: Source of randomness of each; nothing else matters.
            all_prefixes: Whether there are networks for all numbers of chunks of a window; else
                one number is drawn.
        """
        asked = Asked()
        for window, generator in zip(windows, generators, strict=True):
            tokens = self.tokens(window)
            if self.reads_chunks:
                self._chunks(asked, tokens, generator, all_prefixes)
            if "caclm" in self.modes:
                self._caclm(asked, tokens)
        return asked

    def tokens(self, window: Sequence[int]) -> list[int]:
        """The tokens that an encoder of documents sees when it is given the window as a text."""
        again = encode(self.tokenizer, list(pieces(self._text(window))))
        tokens = [token for piece in again for token in piece]
        # Where the cut through a word or sign changes what the text is made of, a little is lost.
        return tokens if len(tokens) >= self.least else list(window)

    def _text(self, tokens: Sequence[int]) -> str:
        text: str = self.tokenizer.decode(list(tokens), clean_up_tokenization_spaces=False)
        return text

    def _chunks(
        self, asked: Asked, tokens: list[int], generator: torch.Generator, all_prefixes: bool
    ) -> None:
        size, number = self.chunk, len(asked.raw)
        completes, rebuilds = "completion" in self.modes, "reconstruction" in self.modes
        count = -(-len(tokens) // size)
        last = count - 1 if completes and not rebuilds else count  # prefixes that anything asks for
        if all_prefixes:
            known = list(range(last))
        else:
            most = max(1, count - 1 if completes else count)
            known = [int(torch.randint(most, (), generator=generator))]
        rows = []
        for chunk in known:
            end = min((chunk + 1) * size, len(tokens))
            if completes and end < len(tokens):
                lead = tokens[max(0, end - self.lead) : end]
                labels = tokens[end : end + size]
                rows.append(Row(number, chunk, lead, labels, "completion", follows=True))
            if rebuilds:
                length = min(size, end - self.lead)
                start = int(torch.randint(end - length - self.lead + 1, (), generator=generator))
                cut = start + self.lead
                labels = tokens[cut : cut + length]
                rows.append(Row(number, chunk, tokens[start:cut], labels, "reconstruction"))
        if self.most_rows is not None and len(rows) > self.most_rows:
            kept = torch.randperm(len(rows), generator=generator)[: self.most_rows]
            rows = [rows[i] for i in kept.sort().values.tolist()]
        read = tokens if all_prefixes else tokens[: (known[0] + 1) * size]
        asked.raw.append(self._input(self._text(read)))
        asked.contexts.append(read)
        asked.rows += rows

    def _caclm(self, asked: Asked, tokens: list[int]) -> None:
        ends = torch.tensor([0.0, *self.parts]).cumsum(0) * len(tokens)
        a, b, c, d = (
            tokens[start:stop]
            for start, stop in zip(
                ends[:-1].round().int().tolist(), ends[1:].round().int().tolist(), strict=True
            )
        )
        before, after = self._text(a), self._text(d)
        if self.takes == "demos":
            asked.raw.append([{"input": before, "output": after}])
        else:
            asked.raw.append(self._input(f"{before}\n\n{after}"))
        asked.contexts.append([*a, *self.break_, *d])
        asked.rows.append(Row(len(asked.raw) - 1, -1, b, c, "caclm"))

    def _input(self, text: str) -> Any:
        return {"document": text} if self.takes == "fused" else text

    # -- what rows become ------------------------------------------------------------------------

    def share(self, rows: Sequence[Row]) -> torch.Tensor:
        """What the labels of each row count together: a mode counts the same in every condition."""
        total: dict[tuple[int, str], int] = {}
        for row in rows:
            key = row.condition, row.mode
            total[key] = total.get(key, 0) + len(row.labels)
        weights = [
            self.modes[row.mode] * len(row.labels) / total[row.condition, row.mode] for row in rows
        ]
        return torch.tensor(weights)

    def student(self, rows: Sequence[Row]) -> list[Tree]:
        """The rows without their conditions, a text each."""
        return [[Branch([*row.lead, *row.labels], labels=len(row.labels))] for row in rows]

    def teacher(self, asked: Asked) -> list[Tree]:
        """The rows behind what is known of their conditions, a tree for each condition."""
        trees: list[list[Branch]] = []
        last: list[int] = []
        for context in asked.contexts:
            cuts = range(0, len(context), self.chunk)
            trees.append([Branch(context[c : c + self.chunk], i - 1) for i, c in enumerate(cuts)])
            last.append(len(cuts) - 1)
        for row in asked.rows:
            parent = last[row.condition] if row.chunk < 0 else row.chunk
            shown = row.labels if row.follows else [*row.lead, *row.labels]
            trees[row.condition].append(Branch(shown, parent, len(row.labels)))
        return [*trees]
