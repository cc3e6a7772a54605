"""Adapters of frozen language models over text tasks.

Tasks in the format of Super-NaturalInstructions (`tasks`), as prompts (`prompts`) and tokens
(`tokens`), for a causal language model (`CausalSuite`) or an encoder–decoder one (`Seq2SeqSuite`)
that writes the answer, or a sentence encoder that finds the nearest one (`SentenceSuite`); many
adapters trained at a time (`train_adapters`), and zoos of them (`recipe.AdapterZoo`).
"""

from hypergen._utils.language_models import LanguageModel, load_language_model
from hypergen.zoo.language.causal import CausalSuite
from hypergen.zoo.language.prompts import Prompt
from hypergen.zoo.language.sentence import SentenceSuite
from hypergen.zoo.language.seq2seq import Seq2SeqSuite
from hypergen.zoo.language.seq2seq_decoding import Encoded as _Encoded  # noqa: F401  (it registers)
from hypergen.zoo.language.suite import TextSuite
from hypergen.zoo.language.tasks import Instance, TaskFileError, TextTask, read_task, read_tasks
from hypergen.zoo.language.train import AdapterRun, AdapterTrajectories, train_adapters

__all__ = [
    "AdapterRun",
    "AdapterTrajectories",
    "CausalSuite",
    "Instance",
    "LanguageModel",
    "Prompt",
    "SentenceSuite",
    "Seq2SeqSuite",
    "TaskFileError",
    "TextSuite",
    "TextTask",
    "load_language_model",
    "read_task",
    "read_tasks",
    "train_adapters",
]
