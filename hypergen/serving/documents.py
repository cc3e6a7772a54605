"""Documents that `hypergen generate` reads: files of any size, or standard input."""

from __future__ import annotations

import codecs
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from hypergen._utils.errors import UsageError
from hypergen._utils.progress import progress
from hypergen.generators import DocumentState, GenerativeAdapter, Generator
from hypergen.specs import Weights

_STDIN = "-"
_BLOCK = 1 << 18  # bytes, or characters of standard input


@dataclass(frozen=True)
class TextDocument:
    """A file, or `-` for standard input, that is read when it is needed.

    Attributes:
        path: Where it is.
    """

    path: str

    @property
    def name(self) -> str:
        """What cards call it; where it lies is nobody's business."""
        return "standard input" if self.path == _STDIN else Path(self.path).name

    def check(self) -> None:
        """Looks at the file before any work is done.

        Raises:
            UsageError: It is not there, cannot be read, is empty, or begins like a binary file.
        """
        if self.path == _STDIN:
            return
        path = Path(self.path)
        if not path.exists():
            raise UsageError(f"{path} does not exist")
        try:
            with path.open("rb") as file:
                start = file.read(_BLOCK)
        except OSError as error:
            raise UsageError(f"{path} cannot be read as text: {error}") from error
        if b"\0" in start:
            raise UsageError(f"{path} cannot be read as text: it is a binary file")
        if len(start) < _BLOCK and not start.strip():
            raise UsageError(f"{path} is empty: put the document there")

    def blocks(self) -> Iterator[str]:
        """Its text, block by block, under a progress bar.

        Raises:
            UsageError: It is not UTF-8, or cannot be read; names it.
        """
        try:
            if self.path == _STDIN:
                while text := sys.stdin.read(_BLOCK):
                    text.encode()  # some locales let undecodable bytes pass
                    yield text
                return
            decoder = codecs.getincrementaldecoder("utf-8")()
            size = Path(self.path).stat().st_size
            with (
                Path(self.path).open("rb") as file,
                progress(total=size, desc=self.name, unit="B") as bar,
            ):
                while block := file.read(_BLOCK):
                    yield decoder.decode(block)
                    bar.update(len(block))
                decoder.decode(b"", final=True)
        except (OSError, UnicodeError) as error:
            raise UsageError(f"{self.label} cannot be read as text: {error}") from error

    @property
    def label(self) -> str:
        """What messages call it."""
        return "standard input" if self.path == _STDIN else self.path

    def read(self) -> str:
        """The whole text.

        Raises:
            UsageError: As `blocks`, or there is no text.
        """
        text = "".join(self.blocks())
        if not text.strip():
            raise UsageError(f"{self.label} is empty: put the document there")
        return text


def documents(paths: str | Sequence[str]) -> list[TextDocument]:
    """The documents that `--document` names, looked at.

    Raises:
        UsageError: One cannot be read, or standard input is named twice.
    """
    found = [TextDocument(str(path)) for path in ([paths] if isinstance(paths, str) else paths)]
    if sum(one.path == _STDIN for one in found) > 1:
        raise UsageError("--document - reads standard input, which can be named once")
    for one in found:
        one.check()
    return found


def generate_from_documents(
    generator: Generator, given: Sequence[TextDocument], as_one: bool, n: int, seed: int
) -> Weights:
    """Weights of each document, or of all together; streamed where the generator can.

    Args:
        generator: Reads documents.
        given: The documents.
        as_one: Whether to read all into one adapter.
        n: Draws of each.
        seed: Seed of the draws.

    Raises:
        UsageError: A document cannot be read; names it.
        ConditionError: The generator is conditioned on something else.
    """
    if isinstance(generator, GenerativeAdapter) and generator.streams:
        states: list[DocumentState] = []
        for one in given:
            onto = states.pop() if as_one and states else None
            states.append(generator.read(one.blocks(), onto, progress=False, name=one.label))
        weights = Weights.cat([state.weights() for state in states])
        weights = weights[torch.arange(len(states)).repeat_interleave(n)]
        weights.provenance = {"generator": type(generator).__name__, **generator.provenance}
        return weights
    texts = [one.read() for one in given]
    return generator.generate(document=["\n\n".join(texts)] if as_one else texts, n=n, seed=seed)
