"""Plain text for generators that read documents: the data module of `configs/caclm_smollm2.yaml`.

Losses of Chen et al., "Generative Adapter", 2024, arXiv:2411.05877 (completion, reconstruction) and
of Phang et al., "HyperTuning", ICML 2023, arXiv:2211.12485 (context-augmented causal language
modelling).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from hypergen._utils.errors import UsageError
from hypergen._utils.io import write_json
from hypergen._utils.language_models import LanguageModel
from hypergen._utils.seeding import generator as seeded
from hypergen.conditions import Condition, ConditionEncoder
from hypergen.training.bank import Batch, ListLoader, StepLoader
from hypergen.training.parts import TaskParts
from hypergen.training.processes import own_share, rank_and_world
from hypergen.training.text_parts import EncoderName, TextOptions
from hypergen.training.text_rows import Asked, RowMaker
from hypergen.zoo.language.answer_loss import AnswerLoss, ask_teacher, loss_batch, teacher_batch
from hypergen.zoo.language.likelihood import Reader
from hypergen.zoo.language.plain import PlainText
from hypergen.zoo.language.story_trees import StoryTrees

DEFAULT_TEXT = "$HYPERGEN_DATA/stories"
TEXT_FILE = "text.json"


class TextTask:
    """What the objective `task` takes its loss from."""

    def __init__(self, loss: AnswerLoss) -> None:
        self.loss = loss


class PlainTextDataModule(TaskParts):
    """Windows of plain text: a part of each is the condition, another is predicted with it.

    Modes, of which a batch may hold several, each with its weight:

    - `completion`: the next chunk, with the weights made of the chunks before it;
    - `reconstruction`: a span of the chunks that the weights were made of;
    - `caclm`: a window is cut into A, B, C, D; with the weights made of A and D, C is predicted
      behind B;
    - `distillation`: not another text, but another loss at the same tokens: the divergence from the
      frozen model that has the condition in its prompt. Alone it is that of `completion`, without
      cross-entropy.

    Where the generator makes weights for every number of chunks in one pass (`prefix_weights`) and
    the encoder reads chunks, every chunk of a window is predicted and reconstructed; otherwise the
    window is cut after a random chunk. Logits are made at the predicted tokens only.

    Training batch i is a function of `seed` and i alone, whatever the number of processes. A batch
    holds `condition` (or `raw`, where the encoder is trained), `inputs`, `labels`, `share`, and as
    needed `gather`, `prefixes` and `teacher_logits`.

    Args:
        text: Files and folders of `.txt`, `.md` and `.jsonl`, see `hypergen.zoo.language.plain`;
            `$HYPERGEN_DATA/stories` when not given.
        model: `"smollm2"`, a folder, a GGUF file or a hub name.
        method: See `TextOptions`.
        encoder: See `TextOptions`.
        encoder_args: Arguments of a named encoder, such as `chunk_size`.
        modes: Mode → weight.
        windows_per_batch: Windows of a batch (over all processes).
        window: Tokens of a window.
        chunk_size: Tokens of a chunk; the encoder's own when not given, 64 if it has none.
        lead: Tokens shown before what is predicted.
        caclm_parts: Shares of A, B, C and D.
        most_rows: Most texts that are predicted of a window.
        prefixes: `"all"` numbers of chunks, `"one"` of them, or `"auto"`: what the generator can.
        val_share: Share of the documents to validate on.
        val_windows: Windows of a validation.
        document_chars: Most characters of a document of `.txt` and `.md`.
        epoch: Batches of an epoch.
        dtype: Dtype of the frozen model.
        attention: transformers' `attn_implementation`.
        checkpoint: Keep less for the backward pass, for more time.
        cache: Folder of tokens; memory alone when not given.
        seed: Seed of everything.

    Raises:
        UsageError: An option is out of range or does not fit the others, or a file cannot be read.
    """

    def __init__(
        self,
        text: str | list[str] | None = None,
        model: str = "smollm2",
        method: dict[str, Any] | None = None,
        encoder: EncoderName | ConditionEncoder = "document",
        encoder_args: dict[str, Any] | None = None,
        modes: dict[str, float] | None = None,
        windows_per_batch: int = 4,
        window: int = 512,
        chunk_size: int | None = None,
        lead: int = 1,
        caclm_parts: list[float] | None = None,
        most_rows: int | None = None,
        prefixes: Literal["auto", "all", "one"] = "auto",
        val_share: float = 0.05,
        val_windows: int = 16,
        document_chars: int = 1 << 14,
        epoch: int = 250,
        dtype: str = "float32",
        attention: str | None = None,
        checkpoint: bool = False,
        cache: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(seed=seed)
        for name, value in (
            ("windows_per_batch", windows_per_batch),
            ("window", window),
            ("val_windows", val_windows),
            ("epoch", epoch),
        ):
            if value < 1:
                raise UsageError(f"{name} must be positive, not {value}")
        if prefixes not in ("auto", "all", "one"):
            raise UsageError(f"prefixes is {prefixes!r}: use 'auto', 'all' or 'one'")
        self.text, self.model = text, model
        self.method = method or {"r": 8, "target_modules": ["o_proj"]}
        self.encoder_name, self.encoder_args = encoder, encoder_args
        self.modes = modes or {"completion": 1.0, "reconstruction": 1.0}
        self.windows_per_batch, self.window, self.chunk_size = windows_per_batch, window, chunk_size
        self.lead, self.caclm_parts, self.most_rows = lead, caclm_parts, most_rows
        self.prefixes, self.val_share, self.val_windows = prefixes, val_share, val_windows
        self.document_chars, self.epoch, self.dtype = document_chars, epoch, dtype
        self.attention, self.checkpoint, self.cache = attention, checkpoint, cache
        self.needs: frozenset[str] = frozenset({"inputs"})
        self._device = torch.device("cpu")
        self._loaded: LanguageModel | None = None
        self._corpus: PlainText | None = None
        self._maker: RowMaker | None = None

    # -- parts ---------------------------------------------------------------------------------

    @property
    def options(self) -> TextOptions:
        """How the model is loaded, adapted and reads."""
        return TextOptions(
            self.model,
            self.method,
            self.encoder_name,
            self.encoder_args,
            self.dtype,
            self.attention,
            self.checkpoint,
            self.seed,
        )

    def build(self) -> Any:
        """Reads the text, loads the model, and makes encoder and target.

        Raises:
            UsageError: No text, or an option that model or method do not take.
        """
        given = [self.text] if isinstance(self.text, str) else self.text
        if given is None and not os.environ.get("HYPERGEN_DATA"):
            raise UsageError("say where the text is: --data.text FOLDER, or HYPERGEN_DATA")
        paths = [os.path.expandvars(path) for path in given or [DEFAULT_TEXT]]
        rows = {mode: weight for mode, weight in self.modes.items() if mode != "distillation"}
        taught = self.modes.get("distillation", 0.0)
        loss = AnswerLoss(1.0 if rows else 0.0, taught)
        loaded, encoder, target = self.options.parts()
        chunk = int(self.chunk_size or getattr(encoder, "chunk_size", 64))  # type: ignore[arg-type]
        self._maker = RowMaker(
            loaded.tokenizer,
            rows or {"completion": 1.0},
            encoder.input_name,
            chunk,
            self.lead,
            self.caclm_parts or (1, 1, 1, 1),
            self.most_rows,
        )
        if self.window < self._maker.least:
            raise UsageError(
                f"window={self.window} is below the {self._maker.least} tokens that the modes need "
                f"with chunk_size={chunk}: raise it"
            )
        self._corpus = PlainText(
            paths,
            loaded.tokenizer,
            val_share=self.val_share,
            seed=self.seed,
            cache=self.cache,
            document_chars=self.document_chars,
        )
        self._loaded = loaded
        return TextTask(loss), encoder, target

    @property
    def corpus(self) -> PlainText:
        """The documents."""
        self._built()
        assert self._corpus is not None
        return self._corpus

    @property
    def memory_advice(self) -> str:
        """What to lower when training runs out of memory."""
        further = "" if self.checkpoint else "; set --data.checkpoint true"
        return (
            f"lower --data.windows_per_batch (now {self.windows_per_batch}), --data.window (now "
            f"{self.window}) or --data.most_rows (now {self.most_rows}){further}"
        )

    def save(self, run: Path) -> None:
        """Writes `text.json`: what `hypergen evaluate --stories` loads the model by."""
        write_json(run / TEXT_FILE, {"model": self.options.name, "load": self.options.load})

    # -- Lightning -----------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Moves the target to the trainer's device."""
        self._device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        self.target.to(self._device)

    def teardown(self, stage: str) -> None:
        """Gives the device's memory back."""
        self._device = torch.device("cpu")
        self.target.to(self._device)

    def train_dataloader(self) -> StepLoader:
        """Endless batches, `epoch` of them an epoch."""
        self._built()
        own = own_share(self, "windows_per_batch")
        share = range(own.start, own.stop)

        def draw(step: int) -> Batch:
            return self._batch("train", step, self.windows_per_batch, share)

        return StepLoader(draw, self.epoch)

    def val_dataloader(self) -> ListLoader:
        """The same windows of the validation documents each time."""
        self._built()
        rank, world = rank_and_world(self)
        parts = torch.arange(self.val_windows).split(self.windows_per_batch)
        own = parts[rank::world] if len(parts) >= world else parts
        return ListLoader(
            [partial(self._batch, "val", 0, self.val_windows, part.tolist()) for part in own]
        )

    def test_dataloader(self) -> ListLoader:
        """Those of validation: there are no other documents."""
        return self.val_dataloader()

    # -- batches -------------------------------------------------------------------------------

    def _all_prefixes(self) -> bool:
        """Whether the generator makes weights for every number of chunks that the encoder reads."""
        module = getattr(self.trainer, "lightning_module", None)
        able = hasattr(getattr(module, "generator", None), "prefix_weights")
        chunked = getattr(self.encoder, "chunk_size", None) == self._rows.chunk
        if self.prefixes == "all" and not chunked:
            raise UsageError(
                "prefixes='all' needs an encoder that reads chunks, and chunk_size as it has it"
            )
        if self.prefixes == "all" and self._is_trained():
            raise UsageError("prefixes='all' needs an encoder that is not trained")
        return self.prefixes == "all" or (
            self.prefixes == "auto" and able and chunked and not self._is_trained()
        )

    def _is_trained(self) -> bool:
        return any(p.requires_grad for p in self.encoder.parameters())

    @property
    def _rows(self) -> RowMaker:
        self._built()
        assert self._maker is not None
        return self._maker

    def _batch(self, split: str, step: int, count: int, share: Sequence[int]) -> Batch:
        """Windows `share` of the `count` windows of a step."""
        maker, seeds = self._rows, ("text", self.seed, split, step)
        drawn = self.corpus.draw(split, count, self.window, maker.least, seeded(*seeds))
        windows = [drawn[i].tolist() for i in share]
        all_prefixes = self._all_prefixes() and maker.reads_chunks
        asked = maker.make(windows, [seeded(*seeds, i) for i in share], all_prefixes)
        assert self._loaded is not None
        network: Any = self.target.model
        pad = StoryTrees(self._loaded.tokenizer).pad
        reader = Reader(network, pad, self._loaded.max_length)
        laid = reader.lay_out(maker.student(asked.rows))
        batch: Batch = loss_batch(laid, maker.share(asked.rows), reader.device)
        if self.modes.get("distillation") or "teacher_logits" in self.needs:
            batch |= teacher_batch(reader.lay_out(maker.teacher(asked)), reader.device)
            ask_teacher(self.target.base, batch)
        raw = columns(asked.raw)
        if self._is_trained():
            batch["raw"] = raw
            own = torch.tensor([row.condition for row in asked.rows])
        else:
            with torch.no_grad():
                condition = self.encoder(raw).detach()
            batch["condition"] = condition.to(self._device)
            own = self._networks(asked, condition, all_prefixes)
        if all_prefixes:
            batch["prefixes"] = True
        blocks = torch.arange(len(asked.raw)).repeat_interleave(len(own) // len(asked.raw))
        if all_prefixes or not torch.equal(own, blocks):
            batch["gather"] = own.to(self._device)
        return batch

    def _networks(self, asked: Asked, condition: Condition, all_prefixes: bool) -> Tensor:
        """The network of each row, `[N]`."""
        own = torch.tensor([row.condition for row in asked.rows])
        if not all_prefixes:
            return own
        chunks = condition.mask.cpu().unflatten(1, (-1, self._rows.chunk)).any(-1)
        last = chunks.sum(1)[own] - 1
        chunk = torch.tensor([row.chunk for row in asked.rows])
        return own * chunks.shape[1] + torch.where(chunk < 0, last, chunk.minimum(last))


def columns(raw: list[Any]) -> Any:
    """What an encoder takes: a list, or a list for each name of named parts."""
    if raw and isinstance(raw[0], Mapping):
        return {name: [row[name] for row in raw] for name in raw[0]}
    return raw
