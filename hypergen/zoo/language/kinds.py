"""Which suite asks and judges the tasks of which kind of model."""

from __future__ import annotations

from hypergen._utils.errors import UsageError
from hypergen._utils.language_models import Kind, model_kind
from hypergen.zoo.language.causal import CausalSuite
from hypergen.zoo.language.sentence import SentenceSuite
from hypergen.zoo.language.seq2seq import Seq2SeqSuite
from hypergen.zoo.language.suite import TextSuite

SUITES: dict[Kind, type[TextSuite]] = {
    "causal": CausalSuite,
    "seq2seq": Seq2SeqSuite,
    "encoder": SentenceSuite,
}


def writing_suite(model: str) -> type[CausalSuite]:
    """The suite for a model that writes answers: causal or encoder–decoder.

    Args:
        model: A name for `load_language_model`; its weights are not read.

    Raises:
        UsageError: There is no such model here, or it is an encoder, which writes nothing.
    """
    suite = SUITES[model_kind(model)]
    if not issubclass(suite, CausalSuite):
        raise UsageError(
            f"model {model!r} is an encoder and writes no answers: take a causal or an "
            "encoder–decoder model, or a zoo of adapters (AdapterZoo) for an encoder"
        )
    return suite
