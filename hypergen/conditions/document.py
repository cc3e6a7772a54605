"""Document → hidden states of a frozen language model, read chunk by chunk."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hypergen._utils.errors import ConditionError, did_you_mean
from hypergen._utils.fingerprint import model_fingerprint
from hypergen._utils.language_models import PACKAGED, load_language_model
from hypergen._utils.progress import progress
from hypergen.conditions.base import Condition, ConditionEncoder
from hypergen.conditions.hidden import HiddenStates, Read
from hypergen.conditions.pieces import pieces

_TOGETHER = 64  # pieces tokenised in one call
_LONG = 32  # batches from which on a progress bar is worth it


class DocumentEncoder(ConditionEncoder):
    """Hidden states of the frozen base, of chunks that do not see each other.

    The reading of Chen et al., "Generative Adapter: Contextualizing Language Models in Parameters
    with A Single Forward Pass", 2024, arXiv:2411.05877: the document's tokens are cut into chunks
    of `chunk_size`; each chunk is read by itself, with positions from zero, so that cost and memory
    grow linearly and chunks can be added one at a time. What is kept of each token is what the
    adapted modules are about to see, all of it concatenated. The base runs without gradients, in
    evaluation mode, up to the last layer that is needed, and never computes logits.

    Tokens of a document are those of its pieces (see `hypergen.conditions.pieces`: lines, as a
    rule), each tokenised by itself without special tokens. `stream` therefore sees exactly the
    tokens that a call with the whole string sees. They are those of tokenising line by line, which
    for many tokenizers, not for all, is what tokenising the whole text at once gives.

    The base is loaded at first use, is not part of `state_dict` or `parameters`, and is named with
    its fingerprint, not copied, in saved generators.

    Args:
        model: As for `load_language_model`: `"smollm2"`, a folder, a hub name.
        modules: Adapted modules, as paths (`LoRASpec.modules`) or as their ends (`"q_proj"`).
        read: `"layer"`: the residual stream at the input of each layer that holds one of the
            modules, divided by its root mean square. `"module"`: the modules' own inputs, as they
            are.
        chunk_size: Tokens of a chunk.
        batch_size: Chunks read at a time.
        dtype: Dtype in which the base is loaded; tokens are float32 in any case.

    Raises:
        ConditionError: An option is out of range.
    """

    input_name: ClassVar[str] = "document"

    def __init__(
        self,
        model: str,
        modules: Sequence[str],
        read: Read = "layer",
        chunk_size: int = 256,
        batch_size: int = 8,
        dtype: str = "float32",
    ) -> None:
        super().__init__()
        if read not in ("layer", "module"):
            raise ConditionError(f"read must be 'layer' or 'module', not {read!r}")
        if chunk_size < 1 or batch_size < 1 or not modules:
            raise ConditionError(
                "a DocumentEncoder needs at least one module, chunk_size >= 1 and batch_size >= 1"
            )
        self.model, self.modules_named, self.read = model, tuple(modules), read
        self.chunk_size, self.batch_size, self.dtype = chunk_size, batch_size, dtype
        # In a holder, so that nn.Module does not register the base, nor a copy of this copy it.
        self._held: _Base | None = None

    @classmethod
    def from_model(
        cls,
        model: nn.Module,
        tokenizer: Any,
        modules: Sequence[str],
        *,
        read: Read = "layer",
        chunk_size: int = 256,
        batch_size: int = 8,
        name: str | None = None,
    ) -> DocumentEncoder:
        """Reads with a model that is loaded already, such as a target's base.

        Args:
            model: The frozen transformers model, whose numbers are not copied.
            tokenizer: Its tokenizer.
            modules: See the class.
            read: See the class.
            chunk_size: See the class.
            batch_size: See the class.
            name: What to load when a saved generator is loaded; the model's own name when not
                given.
        """
        config: Any = getattr(model, "config", None)
        own = getattr(config, "_name_or_path", "") or type(model).__name__
        dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
        encoder = cls(name or own, modules, read, chunk_size, batch_size, dtype)
        encoder._held = _Base(model, tokenizer, encoder.modules_named, read)
        encoder._check_length()
        return encoder

    def _base(self) -> _Base:
        if self._held is None:
            loaded = load_language_model(_here(self.model), dtype=self.dtype)
            self._held = _Base(loaded.model, loaded.tokenizer, self.modules_named, self.read)
            self._check_length()
        return self._held

    def _check_length(self) -> None:
        assert self._held is not None
        config: Any = getattr(self._held.model, "config", None)
        limit = int(getattr(config, "max_position_embeddings", 0) or 1 << 30)
        if self.chunk_size > limit:
            raise ConditionError(
                f"chunk_size {self.chunk_size} is more than the {limit} tokens that {self.model} "
                "takes: lower it"
            )

    @property
    def dim(self) -> int:
        """Width D of the tokens: the sum of the widths that are read."""
        return self._base().states.width

    def place(self, module: str) -> tuple[int, int]:
        """Where in a token a module's reading stands: its first number and its width.

        Raises:
            ConditionError: The encoder does not read for that module.
        """
        places = self._base().states.places
        if module not in places:
            raise ConditionError(
                f"the DocumentEncoder does not read for module {module!r}: name it in modules."
                f"{did_you_mean(module, places)}"
            )
        return places[module]

    def config(self) -> dict[str, Any]:
        """Constructor arguments that change the result."""
        return {
            "model": self.model,
            "modules": list(self.modules_named),
            "read": self.read,
            "chunk_size": self.chunk_size,
            "dtype": self.dtype,
        }

    @property
    def fingerprint(self) -> str:
        """Identity of the base's weights, that of `LoRASpec` for the same base."""
        return self._base().fingerprint

    def forward(self, inputs: Any) -> Condition:
        """Reads whole documents, `[B]` strings → tokens `[B, T, D]`.

        T is the longest document's number of chunks times `chunk_size`; the rest is masked. Chunks
        of all documents are read together, `batch_size` at a time.

        Raises:
            ConditionError: A document is empty, not a string, or binary; says which.
        """
        documents = [inputs] if isinstance(inputs, str) else list(inputs)
        if not documents:
            raise ConditionError("no document given: pass at least one")
        rows: list[list[int]] = []
        places: list[tuple[int, int]] = []
        for i, document in enumerate(documents):
            if not isinstance(document, str):
                raise ConditionError(f"document {i} is a {type(document).__name__}, not a string")
            own = list(self._chunks(document, f"document {i}"))
            places += [(i, c) for c in range(len(own))]
            rows += own
        hidden, mask = self._read(rows)
        shape = (len(documents), 1 + max(c for _, c in places), self.chunk_size)
        where = tuple(torch.tensor(places, device=hidden.device).T)
        tokens, real = hidden.new_zeros(*shape, self.dim), mask.new_zeros(shape)
        tokens[where], real[where] = hidden, mask
        return _condition(tokens.flatten(1, 2), real.flatten(1, 2))

    def stream(self, source: Any, name: str = "the document") -> Iterator[Condition]:
        """Reads one document of any length in constant memory.

        Args:
            source: A string, a file opened as text, or an iterable of strings, read as if joined.
            name: What messages call the document.

        Yields:
            Up to `batch_size` chunks at a time, tokens `[1, chunks · chunk_size, D]`: in turn those
            that `forward` gives for the same text.

        Raises:
            ConditionError: The document is empty, not text, or binary.
        """
        batch: list[list[int]] = []
        for chunk in self._chunks(source, name):
            batch.append(chunk)
            if len(batch) == self.batch_size:
                yield _joined(*self._read(batch))
                batch = []
        if batch:
            yield _joined(*self._read(batch))

    def _chunks(self, source: Any, name: str) -> Iterator[list[int]]:
        """Token numbers of one chunk after the other; all but the last are full."""
        tokenizer = self._base().tokenizer
        size, texts, count = self.chunk_size, pieces(source, name), 0
        held: list[int] = []
        while several := list(islice(texts, _TOGETHER)):
            encoded = tokenizer(several, add_special_tokens=False, verbose=False)["input_ids"]
            held += chain.from_iterable(encoded)
            full = len(held) // size * size
            for start in range(0, full, size):
                yield held[start : start + size]
            held, count = held[full:], count + full
        if held:
            yield held
        elif not count:
            raise ConditionError(f"{name} is empty: it has no token")

    def _read(self, rows: list[list[int]]) -> tuple[Tensor, Tensor]:
        """Hidden states `[N, chunk_size, D]` of rows of token numbers, and their mask."""
        base = self._base()
        device = next(base.model.parameters()).device
        lengths = torch.tensor([len(row) for row in rows], device=device)
        mask = torch.arange(self.chunk_size, device=device) < lengths[:, None]
        hidden = torch.zeros(len(rows), self.chunk_size, self.dim, device=device)
        # Rows of one length stand together, so that few batches are padded.
        order = sorted(range(len(rows)), key=lambda i: (-len(rows[i]), i))
        starts: Any = range(0, len(rows), self.batch_size)
        if len(starts) >= _LONG:
            starts = progress(starts, desc="reading documents", unit="batch")
        for start in starts:
            index = order[start : start + self.batch_size]
            longest = len(rows[index[0]])
            ids = [rows[i] + [0] * (longest - len(rows[i])) for i in index]
            read = base.states(torch.tensor(ids, device=device), mask[index, :longest])
            hidden[index, :longest] = read
        return hidden, mask


def _joined(hidden: Tensor, mask: Tensor) -> Condition:
    """Chunks of one document, `[N, L, D]`, in a row."""
    return _condition(hidden.flatten(0, 1)[None], mask.flatten()[None])


def _condition(tokens: Tensor, mask: Tensor) -> Condition:
    """`Condition.from_tokens` of tokens that are masked already: they are large, and not copied."""
    return Condition(tokens, mask, tokens.sum(1) / mask.sum(1, keepdim=True))


class _Base:
    """A frozen model, held so that a copy of its holder shares it."""

    def __init__(self, model: nn.Module, tokenizer: Any, modules: Sequence[str], read: Read):
        self.model, self.tokenizer = model, tokenizer
        self.states = HiddenStates(model, modules, read)
        self._fingerprint: str | None = None

    @property
    def fingerprint(self) -> str:
        if self._fingerprint is None:
            self._fingerprint = model_fingerprint(self.model)
        return self._fingerprint

    def __deepcopy__(self, memo: dict[int, Any]) -> _Base:
        return self


def _here(name: str) -> str:
    """The short name of a packaged model that calls itself by its name on the hub."""
    for key, packaged in PACKAGED.items():
        if packaged.hub_name == name and importlib.util.find_spec(packaged.module):
            return key
    return name
