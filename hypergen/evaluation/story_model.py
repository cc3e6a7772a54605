"""A generator of documents and its frozen language model, from a run folder."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from hypergen._utils.errors import RunError, UsageError
from hypergen._utils.io import read_json
from hypergen._utils.language_models import PACKAGED, LanguageModel, load_language_model
from hypergen.conditions import ConditionEncoder, DocumentEncoder
from hypergen.generators import Generator
from hypergen.specs import WeightSpec
from hypergen.targets import Target, make_target
from hypergen.zoo.language.answers import answer_only

_NAMED_BY = ("suite.json", "text.json")  # what a run names its model in


def open_documents(run: str | Path) -> tuple[Generator, Target, LanguageModel]:
    """Loads a generator that reads documents, and the model that it was trained for, once.

    Args:
        run: A run folder or a generator folder.

    Raises:
        RunError: The folder is damaged, or names no model.
        UsageError: The generator does not read documents.
    """
    run = Path(run)
    folder = run / "generator" if (run / "generator").is_dir() else run
    config = read_json(folder / "generator.json")
    try:
        made, arguments = config["encoder"]["class"], dict(config["encoder"]["init_args"])
        spec = WeightSpec.from_dict(config["spec"])
    except (KeyError, TypeError) as error:
        raise RunError(f"{folder / 'generator.json'} is damaged: {error!r}") from error
    name, load = _named(run, spec, arguments)
    loaded = load_language_model(name, kind="causal", **load)
    network = answer_only(loaded.model)
    encoder: ConditionEncoder | None = None
    if made == "DocumentEncoder":  # it reads with the same copy of the model
        arguments.pop("dtype", None)
        encoder = DocumentEncoder.from_model(
            network, loaded.tokenizer, name=arguments.pop("model"), **arguments
        )
    generator = Generator.from_pretrained(folder, encoder=encoder)
    takes = generator.encoder.input_name
    if takes not in ("document", "fused"):
        raise UsageError(
            f"{run} is conditioned on {takes}, not on documents: --stories is not for it"
        )
    return generator, make_target(network, generator.spec), loaded


def _named(run: Path, spec: WeightSpec, encoder: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Name of the model, and further arguments of `load_language_model`."""
    for file in _NAMED_BY:
        if (run / file).is_file():
            found = read_json(run / file)
            found = found.get("init_args", found) if isinstance(found, dict) else {}
            if isinstance(found.get("model"), str) and isinstance(found.get("load", {}), dict):
                return found["model"], dict(found.get("load", {}))
    name = (spec.config.get("base") or {}).get("name")
    if not name:
        raise RunError(f"{run} names no language model: it has neither {' nor '.join(_NAMED_BY)}")
    for key, packaged in PACKAGED.items():  # calls itself by its name on the hub
        if packaged.hub_name == name and importlib.util.find_spec(packaged.module):
            name = key
    dtype = encoder.get("dtype")
    return str(name), {"dtype": dtype} if isinstance(dtype, str) else {}
