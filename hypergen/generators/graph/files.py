"""Generated weights as files, one parameter after the other: no model, no buffer of its size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hypergen._utils.errors import UsageError
from hypergen._utils.io import PathLike, atomic_folder, write_json
from hypergen._utils.progress import progress
from hypergen._utils.streams import Entry, TensorStream, safetensors_stream
from hypergen.conditions.graph import CoverageReport, ModuleGraph
from hypergen.generators.graph.hypernetwork import GraphHypernetwork
from hypergen.generators.graph.initialise import covered, generating

SHARD = 5 * 10**9
INDEX_FILE = "model.safetensors.index.json"
# What buffers of batch norm hold before training.
_BUFFERS = {"running_mean": 0.0, "running_var": 1.0, "num_batches_tracked": 0.0}


def write_weights(
    path: PathLike,
    model: nn.Module,
    generator: GraphHypernetwork,
    graph: ModuleGraph,
    report: CoverageReport,
    *,
    build: Callable[[], nn.Module] | None = None,
    dtype: torch.dtype | None = None,
    shard: int = SHARD,
    seed: int = 0,
) -> list[Path]:
    """Generates a network's weights into a state dict on disk.

    The state dict has every parameter under its first name and every saved buffer. Names of tied
    parameters are in the header, as `safetensors.torch.load_model` reads them.

    Args:
        path: A file `….safetensors`, or a folder that gets shards, their index, and the config of a
            transformers model, for its `from_pretrained`.
        model: The network; may be on the meta device.
        generator: What generates the weights.
        graph: The network's graph.
        report: Which of its parameters are generated; the others, and buffers, keep the values that
            they have in the model.
        build: Builds the network with its own initial values. Called if such values are needed and
            the model is on the meta device.
        dtype: Store floating-point tensors in this one; each in the model's when not given.
        shard: Most bytes of a file in a folder.
        seed: Seed of the generator's noise.

    Returns:
        The files with tensors.

    Raises:
        UsageError: Values of the model are needed that it does not have.
        WeightsError: A parameter comes out as NaN or infinity; nothing is written.
    """
    rules = covered(graph, report)
    state, ties = _state(model)
    generated = {rule.slot.name for rule in rules.rules}
    rest = _rest(model, {n: t for n, t in state.items() if n not in generated}, build)
    entries = {
        name: Entry(
            tuple(tensor.shape),
            dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype,
        )
        for name, tensor in state.items()
    }
    with _opened(Path(path), entries, ties, shard, model) as (streams, files):
        for name, tensor in rest.items():
            streams[name].write(name, tensor)
        buffer: Tensor | None = None
        home = next(generator.parameters())
        most = max(rule.slot.numel for rule in rules.rules)
        buffer = torch.empty(most, dtype=home.dtype, device=home.device)
        bar = progress(total=len(rules.rules), desc="init", unit="tensor")
        with bar:
            for rule, value in generating(
                generator,
                graph,
                rules,
                seed,
                lambda rule: buffer[: rule.slot.numel].view(rule.slot.shape),
            ):
                streams[rule.slot.name].write(rule.slot.name, value)
                bar.update(1)
    return files


def _state(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Every tensor of the state dict under its first name, and further names → first ones."""
    first: dict[int, str] = {}
    kept: dict[str, Tensor] = {}
    ties: dict[str, str] = {}
    for name, parameter in model.named_parameters():  # ties under their first name
        first[id(parameter)] = name
    for name, tensor in model.state_dict(keep_vars=True).items():
        if not isinstance(tensor, Tensor):
            continue
        known = first.setdefault(id(tensor), name)
        if known == name:
            kept[name] = tensor
        else:
            ties[name] = known
    return kept, ties


def _rest(
    model: nn.Module, wanted: Mapping[str, Tensor], build: Callable[[], nn.Module] | None
) -> dict[str, Tensor]:
    """Values of what is not generated."""
    found: dict[str, Tensor] = {}
    missing = []
    for name, tensor in wanted.items():
        leaf = name.rpartition(".")[2]
        if not tensor.is_meta:
            found[name] = tensor
        elif leaf in _BUFFERS and not isinstance(tensor, nn.Parameter):
            found[name] = torch.full_like(tensor, _BUFFERS[leaf], device="cpu")
        else:
            missing.append(name)
    if missing:
        if build is None:
            raise UsageError(
                f"{missing[0]!r} is not generated, and the network is on the meta device: its own "
                "value is not known. Pass build=, or a network with values"
            )
        own, _ = _state(build())
        found.update({name: own[name] for name in missing})
    return found


@contextmanager
def _opened(
    path: Path, entries: Mapping[str, Entry], ties: Mapping[str, str], shard: int, model: nn.Module
) -> Iterator[tuple[dict[str, TensorStream], list[Path]]]:
    """For each name the file that takes its tensor; and the files, as they are called later."""
    metadata = {"format": "pt", **ties}
    if path.suffix == ".safetensors":
        with safetensors_stream(path, entries, metadata) as stream:
            yield dict.fromkeys(entries, stream), [path]
        return
    if path.suffix and not path.is_dir():
        raise UsageError(f"{path}: name a file that ends in .safetensors, or a folder")
    shards = _shards(entries, shard)
    names = [
        "model.safetensors"
        if len(shards) == 1
        else f"model-{i:05d}-of-{len(shards):05d}.safetensors"
        for i in range(1, len(shards) + 1)
    ]
    with atomic_folder(path, overwrite=True) as folder:
        streams: dict[str, TensorStream] = {}
        with ExitStack() as stack:
            for name, part in zip(names, shards, strict=True):
                # Names of ties stand in the file of the tensor that they name.
                own = {k: v for k, v in metadata.items() if k == "format" or v in part}
                stream = stack.enter_context(safetensors_stream(folder / name, part, own))
                streams.update(dict.fromkeys(part, stream))
            yield streams, [path / name for name in names]
        if len(shards) > 1:
            where = {key: name for name, part in zip(names, shards, strict=True) for key in part}
            total = sum(entry.size for entry in entries.values())
            write_json(
                folder / INDEX_FILE, {"metadata": {"total_size": total}, "weight_map": where}
            )
        config: Any = getattr(model, "config", None)
        if hasattr(config, "to_json_file"):
            config.architectures = [type(model).__name__]
            config.to_json_file(folder / "config.json")


def _shards(entries: Mapping[str, Entry], most: int) -> list[dict[str, Entry]]:
    shards: list[dict[str, Entry]] = [{}]
    size = 0
    for name, entry in sorted(entries.items()):
        if shards[-1] and size + entry.size > most:
            shards.append({})
            size = 0
        shards[-1][name] = entry
        size += entry.size
    return shards
