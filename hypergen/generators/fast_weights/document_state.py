"""What has been read so far of a document: sums of constant size."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hypergen._utils.errors import ConditionError, RunError, WeightsError
from hypergen._utils.io import load_safetensors, load_safetensors_metadata, save_safetensors
from hypergen.conditions import Condition
from hypergen.specs import Weights

if TYPE_CHECKING:
    from hypergen.generators.fast_weights.generative_adapter import GenerativeAdapter

FORMAT_VERSION = 1
_KIND = "hypergen.document_state"


class DocumentState:
    """The sums of a `GenerativeAdapter` over the chunks read so far.

    Its size does not depend on how much was read. Each `update` begins a chunk of its own.

    Args:
        generator: What reads and emits.
        sums: One tensor `[modules, 1, r1, columns]` for each of its families.
        tokens: Number of tokens read.
        chunks: Number of chunks read.
    """

    def __init__(
        self,
        generator: GenerativeAdapter,
        sums: Sequence[Tensor],
        tokens: int = 0,
        chunks: int = 0,
    ) -> None:
        self.generator, self.sums = generator, list(sums)
        self.tokens, self.chunks = tokens, chunks

    def __repr__(self) -> str:
        return f"DocumentState({self.tokens:,} tokens in {self.chunks:,} chunks)"

    @property
    def nbytes(self) -> int:
        """Memory of the sums."""
        return sum(s.numel() * s.element_size() for s in self.sums)

    def update(self, more: str | Condition) -> DocumentState:
        """Reads on, and returns itself.

        Args:
            more: A text, of any length, or one encoded document.

        Raises:
            ConditionError: The text is empty or no text, or there are several documents.
        """
        if isinstance(more, Condition):
            return self.add(more)
        return self.generator.read(more, self, progress=False)

    @torch.no_grad()
    def add(self, condition: Condition) -> DocumentState:
        """Adds chunks that follow what was read; see `update`."""
        if len(condition) != 1:
            raise ConditionError(
                f"a state reads one document, but {len(condition)} are given: read each into a "
                "state of its own, and merge them"
            )
        condition = condition.to(self.generator.device)
        tokens = int(condition.mask.sum())
        size = self.generator.chunk_size or condition.mask.shape[1]
        padded = torch.nn.functional.pad(condition.mask, (0, -condition.mask.shape[1] % size))
        chunks = int(padded.unflatten(1, (-1, size)).any(-1).sum())
        self.decay(self.generator.options.decay**chunks)
        for own, new in zip(self.sums, self.generator.sums(condition), strict=True):
            own += new
        self.tokens, self.chunks = self.tokens + tokens, self.chunks + chunks
        return self

    def merge(self, other: DocumentState) -> DocumentState:
        """Adds what another state has read, and returns itself.

        The order in which states are merged does not matter beyond rounding.

        Raises:
            WeightsError: It was made by another generator.
        """
        if other.generator is not self.generator and identity(other.generator) != identity(
            self.generator
        ):
            raise WeightsError("the two states were made by different generators")
        for own, new in zip(self.sums, other.sums, strict=True):
            own += new.to(own.device)
        self.tokens, self.chunks = self.tokens + other.tokens, self.chunks + other.chunks
        return self

    def decay(self, factor: float) -> DocumentState:
        """Multiplies the sums, so that what comes counts for more; returns itself.

        Raises:
            ConditionError: The factor is not in [0, 1].
        """
        if not 0 <= factor <= 1:
            raise ConditionError(f"the factor of decay must be in [0, 1], not {factor}")
        if factor < 1:
            for own in self.sums:
                own *= factor
        return self

    def copy(self) -> DocumentState:
        """A state of its own with the same sums."""
        return DocumentState(
            self.generator, [s.clone() for s in self.sums], self.tokens, self.chunks
        )

    @torch.no_grad()
    def weights(self) -> Weights:
        """The adapter of what has been read: a batch of one; that of nothing changes nothing."""
        made = self.generator.emit(self.sums).detach().check_finite()
        made.provenance = {
            "generator": type(self.generator).__name__,
            "tokens read": self.tokens,
            **self.generator.provenance,
        }
        return made

    def save_pretrained(self, folder: str | Path) -> Path:
        """Writes the adapter of what has been read as a folder that stock PEFT loads."""
        return self.weights().save_pretrained(folder)[0]

    # -- files -----------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Writes sums and counts to one safetensors file, atomically.

        Raises:
            WeightsError: A sum is NaN or infinite.
        """
        metadata = {
            "format": "pt",
            _KIND: json.dumps(
                {
                    "format_version": FORMAT_VERSION,
                    "generator": identity(self.generator),
                    "base": self.generator.encoder.fingerprint,
                    "tokens": self.tokens,
                    "chunks": self.chunks,
                },
                sort_keys=True,
            ),
        }
        sums = {f"sums.{i}": s for i, s in enumerate(self.sums)}
        save_safetensors(path, sums, metadata, check_finite=True)

    @staticmethod
    def load(path: str | Path, generator: GenerativeAdapter) -> DocumentState:
        """Reads what `save` wrote, to read on.

        Args:
            path: The file.
            generator: The generator that made it.

        Raises:
            RunError: The file is missing, damaged, or no document state.
            WeightsError: It was made with another base or another generator.
        """
        text = load_safetensors_metadata(path).get(_KIND)
        if text is None:
            raise RunError(f"{path} holds no document state: DocumentState.save writes them")
        try:
            said: dict[str, Any] = json.loads(text)
            version, base, maker = said["format_version"], said["base"], said["generator"]
            tokens, chunks = int(said["tokens"]), int(said["chunks"])
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(f"{path}: the state's header is damaged ({error!r})") from error
        if version != FORMAT_VERSION:
            raise RunError(
                f"{path} has format version {version}; this hypergen reads {FORMAT_VERSION}"
            )
        if base != generator.encoder.fingerprint:
            raise WeightsError(
                f"{path} was read with another base model (fingerprint {base[:12]}) than this "
                f"generator's ({generator.encoder.fingerprint[:12]})"
            )
        if maker != identity(generator):
            raise WeightsError(f"{path} was made by another generator, or before more training")
        tensors = load_safetensors(path)
        state = generator.state()
        for i, own in enumerate(state.sums):
            read = tensors.pop(f"sums.{i}", None)
            if read is None or read.shape != own.shape:
                raise RunError(f"{path} is damaged: tensor 'sums.{i}' is missing or misshapen")
            own.copy_(read)
        if tensors:
            raise RunError(f"{path} has an unexpected tensor {min(tensors)!r}")
        state.tokens, state.chunks = tokens, chunks
        return state


def identity(generator: GenerativeAdapter) -> str:
    """SHA-256 over a generator's options, spec, encoder and numbers."""
    said = generator.to_dict()
    kept = {key: said[key] for key in ("class", "init_args", "encoder", "spec")}
    # The base is told apart by its fingerprint, not by where it lies.
    kept["encoder"]["init_args"].pop("model", None)
    digest = hashlib.sha256(json.dumps(kept, sort_keys=True).encode())
    for name, tensor in sorted(generator.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
