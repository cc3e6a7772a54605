"""State dicts: whole networks in safetensors files, `torch.save` files, Lightning checkpoints."""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from hypergen.specs import FullSpec, Slot, WeightSpec
from hypergen.specs.models import layer_index
from hypergen.zoo.importing.checkpoint import Checkpoint, Facts, common_layout, same_shapes
from hypergen.zoo.importing.report import SkipFile
from hypergen.zoo.importing.sources import Found, Kind
from hypergen.zoo.importing.tensors import (
    digest,
    floating,
    layout_of,
    read_safetensors,
    read_torch,
    unwrap,
    without_prefix,
)
from hypergen.zoo.networks import Network
from hypergen.zoo.store.records import Architecture
from hypergen.zoo.store.shards import file_hash

# Within a module, in the order in which torch makes them.
_LEAVES = ("weight", "bias", "running_mean", "running_var")


@dataclass(frozen=True)
class StateCheckpoint(Checkpoint):
    """All floating-point tensors of a network.

    Attributes:
        network: The architecture that the mapping file gives it.
    """

    network: Network | None

    @property
    def group(self) -> Hashable:
        """Names and shapes (and the network)."""
        return self.network, tuple((name, shape) for name, shape, _ in self.layout)

    @property
    def key(self) -> str:
        """Class of the network, or its size."""
        numel = sum(math.prod(shape) for _, shape, _ in self.layout)
        kind = type(self.network).__name__.lower() if self.network is not None else "network"
        return f"{kind}-{numel}"

    @classmethod
    def architecture(cls, members: Sequence[StateCheckpoint]) -> Architecture:
        """The network's own spec, or one slot a tensor with roles guessed by name and shape."""
        layout, network = common_layout(members), members[0].network
        dtypes = {name: dtype for name, _, dtype in layout}
        if network is not None:
            data = network.spec().to_dict()
            slots = [{**slot, "dtype": dtypes[slot["name"]]} for slot in data["slots"]]
            return Architecture(WeightSpec.from_dict({**data, "slots": slots}), network.to_dict())
        config = {
            "select": "*",
            "gain": math.sqrt(2),
            "base": {"class": "unknown", "name": None, "fingerprint": None},
            "buffers": True,
        }
        spec = FullSpec.__new__(FullSpec)
        WeightSpec.__init__(
            spec, [_slot(*entry) for entry in sorted(layout, key=lambda e: _order(e[0]))], config
        )
        return Architecture(spec)

    def fits(self, architecture: Architecture) -> bool:
        """Same network, names and shapes."""
        config = self.network.to_dict() if self.network is not None else {}
        return (
            architecture.spec.kind == FullSpec.kind
            and architecture.config == config
            and same_shapes(self.layout, architecture.spec)
        )

    def read(self) -> dict[str, Tensor]:
        """Reads the file again."""
        raw, _, _ = _raw(self.found)
        tensors, _ = floating(raw)
        return _fitted(without_prefix(tensors), self.network)


def read_state(found: Found, kind: Kind, network: dict[str, Any] | None) -> StateCheckpoint:
    """Reads a state dict for the first time.

    Args:
        found: The file.
        kind: What is imported; Lightning's own entries are read unless it is `"state_dict"`.
        network: The architecture that the mapping file gives it, as `Network.to_dict` writes it.

    Raises:
        SkipFile: It cannot be taken.
        UsageError: The network makes no sense.
    """
    known = None if network is None else Network.from_dict(network)
    raw, beside, whole = _raw(found)
    lightning = isinstance(whole, Mapping) and "pytorch-lightning_version" in whole
    if kind == "lightning" and not lightning:
        raise SkipFile("it is no Lightning checkpoint: it has no 'pytorch-lightning_version'")
    tensors, left_out = floating(raw)
    tensors = _fitted(without_prefix(tensors), known)
    facts = Facts()
    if lightning and kind != "state_dict":
        facts, lost = _lightning_facts(whole)
        left_out += lost
    else:
        left_out += beside
    return StateCheckpoint(
        found=found,
        sha256=file_hash(found.file),
        digest=digest(tensors, ""),
        layout=layout_of(tensors),
        left_out=tuple(left_out),
        facts=facts,
        network=known,
    )


def _raw(found: Found) -> tuple[dict[str, Any], list[str], Any]:
    """The state dict of a file, what lies beside it, and the whole."""
    if found.file.suffix.lower() == ".safetensors":
        return dict(read_safetensors(found.file)), [], None
    whole = read_torch(found.file)
    state, beside = unwrap(whole)
    return state, beside, whole


def _fitted(tensors: dict[str, Tensor], network: Network | None) -> dict[str, Tensor]:
    """Renames the tensors to the slots of a network, whose attribute may hold it (`model.`).

    Raises:
        SkipFile: They are not its tensors; names the first difference.
    """
    if network is None:
        return tensors
    spec = network.spec()
    ties = {name for slot in spec for name in slot.ties}
    plain, prefix = tensors, ""
    while not set(spec.names) <= set(plain):
        heads = {name.partition(".")[0] for name in plain}
        if len(heads) != 1 or not all("." in name for name in plain):
            plain, prefix = tensors, ""
            break
        prefix += f"{next(iter(heads))}."
        plain = {name.partition(".")[2]: tensor for name, tensor in plain.items()}
    plain = {name: tensor for name, tensor in plain.items() if name not in ties}
    words = f"it does not fit the {type(network).__name__} of the mapping file"
    for slot in spec:
        if slot.name not in plain:
            raise SkipFile(f"{words}: {slot.name!r} is missing")
        if tuple(plain[slot.name].shape) != slot.shape:
            raise SkipFile(
                f"{words}: {slot.name!r} has shape {tuple(plain[slot.name].shape)}, "
                f"not {slot.shape}"
            )
    for name in plain:
        if name not in spec:
            raise SkipFile(f"{words}: it has no {name!r}")
    return plain


def _lightning_facts(whole: Mapping[str, Any]) -> tuple[Facts, list[str]]:
    """Step, epoch and hyperparameters of a Lightning checkpoint, and what JSON cannot hold."""
    step, epoch = whole.get("global_step"), whole.get("epoch")
    given = whole.get("hyper_parameters")
    lost: list[str] = []
    hyperparameters = {}
    if isinstance(given, Mapping):
        try:
            hyperparameters = _plain(given, "hyper_parameters", lost)
        except RecursionError:
            raise SkipFile("its hyper_parameters hold themselves") from None
    metadata = {"epoch": epoch} if isinstance(epoch, int) else {}
    count = step if isinstance(step, int) and step >= 0 else None
    return Facts(count, True, "", hyperparameters, metadata), lost


def _plain(value: Any, where: str, lost: list[str]) -> Any:
    """The JSON-serialisable part of a value; adds the rest to `lost`."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, Mapping):
        items = {str(k): (v, _plain(v, f"{where}.{k}", lost)) for k, v in value.items()}
        return {k: kept for k, (v, kept) in items.items() if kept is not None or v is None}
    if isinstance(value, (list, tuple)):
        return [_plain(v, f"{where}[{i}]", lost) for i, v in enumerate(value)]
    lost.append(f"{where} ({type(value).__name__})")
    return None


def _order(name: str) -> tuple[Any, ...]:
    """Sorts `layers.2` before `layers.10`, and a weight before its bias."""
    module, _, leaf = name.rpartition(".")
    parts = [(0, int(p), "") if p.isdigit() else (1, 0, p) for p in re.split(r"[._]", module) if p]
    rank = _LEAVES.index(leaf) if leaf in _LEAVES else len(_LEAVES)
    return parts, rank, leaf


def _slot(name: str, shape: tuple[int, ...], dtype: str) -> Slot:
    """A slot of a tensor of which only name and shape are known."""
    module, _, leaf = name.rpartition(".")
    fan_in = math.prod(shape[1:])
    given: dict[str, Any]
    if leaf.startswith("running_"):
        given = {"role": "other", "mean": float(leaf == "running_var"), "scale": 0.1}
    elif "bias" in leaf:
        given = {"role": "bias", "scale": 0.1}
    elif len(shape) >= 2 and "emb" in module.rpartition(".")[2].lower():
        given = {"role": "embedding", "fan_in": 1, "fan_out": shape[-1], "std": 1.0}
    elif len(shape) >= 2:
        std = math.sqrt(2 / fan_in)
        given = {"role": "weight", "fan_in": fan_in, "fan_out": shape[0], "std": std, "scale": std}
    elif leaf == "weight":
        given = {"role": "norm", "mean": 1.0, "scale": 0.1}
    else:
        given = {"role": "other", "std": 0.02, "scale": 0.02}
    return Slot(
        name=name, shape=shape, dtype=dtype, module=module, layer=layer_index(module), **given
    )
