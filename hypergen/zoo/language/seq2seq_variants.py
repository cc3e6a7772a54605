"""The variants of `hypergen.zoo.language.variants` for an encoder–decoder model."""

from __future__ import annotations

from hypergen.zoo.language import variants
from hypergen.zoo.language.seq2seq import Seq2SeqSuite


class WithoutDescription(variants.WithoutDescription, Seq2SeqSuite):
    """The suite's prompt where nothing is said."""


class InContext(variants.InContext, Seq2SeqSuite):
    """The suite's prompt with demonstrations behind the description."""
