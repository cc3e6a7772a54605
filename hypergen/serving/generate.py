"""`hypergen generate`: a condition in, an adapter folder (or a merged model) out."""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypergen._utils.errors import UsageError
from hypergen.generators import Generator, load_generator
from hypergen.serving.documents import generate_from_documents
from hypergen.serving.export import CONFIG_FILE
from hypergen.serving.inputs import demo_files, read_inputs
from hypergen.serving.merge import check_mergeable, merge_into_base, save_merged
from hypergen.serving.output import check_out, save_networks
from hypergen.serving.portable import portable_profile
from hypergen.serving.refine import losses_apart, refined, tuning_in_words, tuning_of
from hypergen.specs import Weights
from hypergen.specs.merging import exact_mix

Writer = Callable[[Weights, Path], object]


def generate_command(args: argparse.Namespace) -> dict[str, Any]:
    """Generates weights and saves them as folders that stock PEFT (or the spec's own) loads.

    One network goes into `out` itself, several into `out/0000`, `out/0001`, …, condition by
    condition, beside `index.json`, which says what each was made from. All come of one batched
    call.

    Args:
        args: `run`; `text` (a sentence, several, or `-` for the lines of standard input), `demos`
            (a JSON Lines file, or several) or both, or `document` (text files, one network each,
            `-` for standard input), or none of them, for a generator without a condition; `n`,
            `seed`, `out`; `json`.
            Optional: `as_one` (read all documents into one network), `mix` (coefficients of the
            networks' updates, which become one; empty for their mean), `merge` (write the base
            with the update in its weights), `base` (where that base is) and `load_base` (a
            function of a name and of whether it is the recorded one, which returns model and
            tokenizer).

    Returns:
        `{"out": [folder], "expected_gain": [gain] or None, "portable": [problem] or None where the
        folders are no adapters, "seconds": {"load": …, "generate": …, "save": …},
        "sha256": {file: digest}, "spec": …}`; of tuned weights also `refined` or `searched`, a list
        with steps and losses of each network.

    Raises:
        RunError: The run folder is missing or damaged.
        ConditionError: A bad input, or a kind that the generator does not take.
        WeightsError: Weights that cannot be mixed or merged, or for another base.
        UsageError: An input file is missing or malformed, options do not go together, or `out`
            holds something else.
    """
    start = time.perf_counter()
    inputs = read_inputs(args)
    mix = _coefficients(args, inputs)
    out = Path(args.out)
    check_out(out)
    generator = load_generator(args.run)
    write = _writer(args, generator)
    loaded = time.perf_counter()
    if "document" in inputs:
        as_one = getattr(args, "as_one", False)
        weights = generate_from_documents(generator, inputs["document"], as_one, args.n, args.seed)
    else:
        weights = generator.generate(**inputs, n=args.n, seed=args.seed)
    if getattr(args, "refine", None) is not None:
        weights = refined(args, generator, inputs, weights)
    networks, titles = _networks(args, inputs, weights, mix)
    losses_apart(networks)
    generated = time.perf_counter()
    folders = save_networks(networks, titles, out, write)
    saved = time.perf_counter()
    # All are of one spec: what holds for one holds for the others.
    is_adapter = (folders[0] / CONFIG_FILE).exists()
    portable = portable_profile(folders[0]) if is_adapter else None
    gains = None if networks[0].expected_gain is None else [_gain(one) for one in networks]
    if getattr(args, "json", None) is None:
        for i, folder in enumerate(folders):
            said = "" if gains is None else f"  expected gain {gains[i]:+.3f}"
            said += tuning_in_words(networks[i])
            print(f"{folder}{said}")
        for problem in portable or []:
            print(f"note: {problem}", file=sys.stderr)
    written = folders if len(folders) == 1 else [*folders, out]
    return {
        "out": [str(folder) for folder in folders],
        "expected_gain": gains,
        "portable": portable,
        "seconds": {
            "load": loaded - start,
            "generate": generated - loaded,
            "save": saved - generated,
        },
        "sha256": {
            str(file.relative_to(out)): hashlib.sha256(file.read_bytes()).hexdigest()
            for folder in written
            for file in sorted(folder.iterdir())
            if file.is_file()
        },
        "spec": networks[0].spec.to_dict(),
        **tuning_of(networks),
    }


def _gain(weights: Weights) -> float:
    assert weights.expected_gain is not None
    return float(weights.expected_gain[0])


def _coefficients(args: argparse.Namespace, inputs: dict[str, Any]) -> list[float] | None:
    """What `--mix` asks for: a coefficient for each description.

    Raises:
        UsageError: There are not two descriptions, or another number of coefficients.
    """
    given = getattr(args, "mix", None)
    if given is None:
        return None
    count = 1 if getattr(args, "as_one", False) or not inputs else len(next(iter(inputs.values())))
    if count < 2:
        raise UsageError(
            "--mix needs two descriptions or more: repeat --text (or --demos), or give --document "
            "several files"
        )
    if given and len(given) != count:
        raise UsageError(f"--mix has {len(given)} weights for {count} descriptions: give one each")
    return list(given) or [1 / count] * count


def _networks(
    args: argparse.Namespace, inputs: dict[str, Any], weights: Weights, mix: list[float] | None
) -> tuple[list[Weights], list[str]]:
    """The networks to write, with what model cards and the index say of each."""
    draws = args.n
    # Sentences are quoted; of files only the name: what they hold may be private.
    said = {
        kind: rows if kind == "text" else _file_names(args, len(rows))
        for kind, rows in inputs.items()
        if kind != "document"
    }
    if "document" in inputs:
        files = [document.name for document in inputs["document"]]
        said["document"] = [", ".join(files)] if getattr(args, "as_one", False) else files
    names = [
        f"{parts[0]} ({parts[1]})" if len(parts) > 1 else parts[0]
        for parts in zip(*said.values(), strict=True)
    ]
    if mix is not None:
        title = " + ".join(f"{c:g} × {name}" for c, name in zip(mix, names, strict=True))
        mixed = [exact_mix(weights[list(range(d, len(weights), draws))], mix) for d in range(draws)]
        return mixed, [title] * draws
    networks = list(weights)
    if not inputs:  # a generator without a condition
        for i, one in enumerate(networks):
            one.provenance = {**weights.provenance, "seed": args.seed + i}
        return networks, [f"seed {args.seed + i}" for i in range(len(networks))]
    for i, one in enumerate(networks):
        own = {kind: values[i // draws] for kind, values in said.items()}
        one.provenance = {**weights.provenance, **own}
    return networks, [name for name in names for _ in range(draws)]


def _file_names(args: argparse.Namespace, count: int) -> list[str]:
    """The names of the files that `count` networks were made from."""
    files = demo_files(args)
    return [Path(file).name for file in files] * (count // len(files))


def _writer(args: argparse.Namespace, generator: Generator) -> Writer:
    """What writes one network as a folder; loads the base where networks are merged into it.

    Raises:
        UsageError: `--base` without `--merge` or `--refine`, or the base is unknown or not there.
        WeightsError: The generator's weights cannot be merged.
    """
    named: str | None = getattr(args, "base", None)
    if not getattr(args, "merge", False):
        if named is not None and getattr(args, "refine", None) is None:
            raise UsageError("--base names the model for --merge: give both")
        return lambda one, folder: one.save_pretrained(folder)
    check_mergeable(generator.spec)
    recorded = generator.spec.config["base"]
    name = named or recorded["name"]
    if name is None:
        raise UsageError(
            f"--merge: the generator records no name of its base ({recorded['class']}): say where "
            "it is by --base"
        )
    model, tokenizer = args.load_base(name, named is None)
    return lambda one, folder: save_merged(merge_into_base(one, model), tokenizer, one, folder)
