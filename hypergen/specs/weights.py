"""Weights: a differentiable batch of generated networks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import torch
from torch import Tensor

from hypergen._utils.errors import RunError, WeightsError, did_you_mean
from hypergen._utils.io import load_safetensors, load_safetensors_metadata, save_safetensors
from hypergen.specs.base import WeightSpec


class Weights:
    """`B` sets of weights of one spec, always batched, differentiable.

    The numbers live in one tensor per group, `[B, len(group), *shape]`. When they come from one
    flat buffer, the groups are views of it. Operators act entry by entry: `a + b` adds the
    tensors. For LoRA that is not the sum of the two updates; see
    `hypergen.specs.lora.concatenate_ranks` for that.

    Args:
        spec: What the numbers mean.
        groups: One tensor per group of the spec.
        flat: The buffer `[B, numel]` that the groups are views of, if there is one.
        expected_gain: `[B]`, the score that the generator expects to win over the base.
        provenance: What the weights were made from (JSON-serialisable), written to model cards.

    Raises:
        WeightsError: A group has another shape than the spec asks for; names the first slot.
    """

    def __init__(
        self,
        spec: WeightSpec,
        groups: Sequence[Tensor],
        *,
        flat: Tensor | None = None,
        expected_gain: Tensor | None = None,
        provenance: dict[str, Any] | None = None,
    ) -> None:
        self.spec = spec
        self.groups = tuple(groups)
        self.expected_gain = expected_gain
        self.provenance = dict(provenance or {})
        self._flat = flat
        self._slots: dict[int, tuple[Tensor, ...]] = {}
        self._is_leaf = False
        if len(self.groups) != len(spec.groups):
            raise WeightsError(f"{len(self.groups)} groups given, the spec has {len(spec.groups)}")
        batch = self.groups[0].shape[0]
        for group, tensor in zip(spec.groups, self.groups, strict=True):
            expected = (batch, len(group), *group.shape)
            if tuple(tensor.shape) != expected:
                raise WeightsError(
                    f"the group of slot {spec.slots[group.start].name!r} has shape "
                    f"{tuple(tensor.shape)}, expected {expected}"
                )

    # -- reading -------------------------------------------------------------------------------

    def __len__(self) -> int:
        return int(self.groups[0].shape[0])

    @property
    def device(self) -> torch.device:
        """Device of the numbers."""
        return self.groups[0].device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the numbers (that of the computation, not the slots' stored dtypes)."""
        return self.groups[0].dtype

    @overload
    def __getitem__(self, key: str) -> Tensor: ...
    @overload
    def __getitem__(self, key: int | slice | Sequence[int] | Tensor) -> Weights: ...
    def __getitem__(self, key: str | int | slice | Sequence[int] | Tensor) -> Tensor | Weights:
        """By slot name: `[B, *shape]`. By position(s): `Weights`, the batch axis kept."""
        if isinstance(key, str):
            if key not in self.spec.location:
                raise WeightsError(f"no slot {key!r}.{did_you_mean(key, self.spec.names)}")
            group, index = self.spec.location[key]
            if self._is_leaf:
                return self.groups[group][:, index]
            if group not in self._slots:
                # Unbound once: the gradient of all slots together is one stack.
                self._slots[group] = self.groups[group].unbind(1)
            return self._slots[group][index]
        if isinstance(key, int):
            if not -len(self) <= key < len(self):
                raise IndexError(f"weights hold {len(self)} networks, index {key} is out of range")
            key = slice(key, key + 1 or None)
        rows = key if isinstance(key, slice) else _index(key, self.device)
        out = self._map(lambda tensor: tensor[rows])
        texts = self.provenance.get("text")
        if isinstance(texts, list | tuple) and texts and len(self) % len(texts) == 0:
            # Rows are ordered input by input: each keeps the sentence that it was made from.
            kept = torch.arange(len(self), device=self.device)[rows] // (len(self) // len(texts))
            own = [texts[i] for i in kept.tolist()]
            out.provenance["text"] = own[0] if len(own) == 1 else own
        return out

    def __iter__(self) -> Iterator[Weights]:
        return (self[i] for i in range(len(self)))

    def named(self) -> dict[str, Tensor]:
        """Slot name → `[B, *shape]` views."""
        return {name: self[name] for name in self.spec.names}

    def row(self, index: int = 0) -> dict[str, Tensor]:
        """Slot name → `[*shape]` of one network, as views.

        The gradient of all slots of one group together is one stack.
        """
        found: dict[str, Tensor] = {}
        for group, tensor in zip(self.spec.groups, self.groups, strict=True):
            # A single row is reshaped: the gradient of indexing fills a tensor with zeros.
            rows = tensor.squeeze(0) if len(tensor) == 1 and index in (0, -1) else tensor[index]
            slots = self.spec.slots[group.start : group.stop]
            found.update(zip((slot.name for slot in slots), rows.unbind(0), strict=True))
        return found

    def flat(self) -> Tensor:
        """`[B, numel]`: the buffer itself when there is one, else the groups concatenated."""
        if self._flat is None:
            self._flat = torch.cat([tensor.flatten(1) for tensor in self.groups], dim=1)
        return self._flat

    def __repr__(self) -> str:
        return f"Weights(B={len(self)}, {self.spec!r}, {self.dtype}, {self.device})"

    def _map(self, fn: Callable[[Tensor], Tensor]) -> Weights:
        """Applies `fn` along the batch axis of everything, to the flat buffer if there is one."""
        gain = None if self.expected_gain is None else fn(self.expected_gain)
        if self._flat is not None:
            out = self.spec.from_flat(fn(self._flat))
        else:
            out = Weights(self.spec, [fn(tensor) for tensor in self.groups])
        out.expected_gain, out.provenance = gain, dict(self.provenance)
        return out

    # -- arithmetic ----------------------------------------------------------------------------

    def _check_same(self, other: Weights) -> None:
        if self.spec is not other.spec and self.spec != other.spec:
            theirs = {slot.name: slot for slot in other.spec}
            for slot in self.spec:
                if theirs.get(slot.name) != slot:
                    raise WeightsError(
                        f"the weights have different specs: slot {slot.name!r} is {slot.shape} "
                        f"here, {theirs[slot.name].shape if slot.name in theirs else 'absent'} "
                        "there"
                    )
            raise WeightsError("the weights have different specs (other slots or other settings)")

    def _combine(self, other: Weights, fn: Callable[[Tensor, Tensor], Tensor]) -> Weights:
        self._check_same(other)
        return Weights(
            self.spec, [fn(a, b) for a, b in zip(self.groups, other.groups, strict=True)]
        )

    def __add__(self, other: Weights) -> Weights:
        return self._combine(other, torch.add)

    def __sub__(self, other: Weights) -> Weights:
        return self._combine(other, torch.sub)

    def __mul__(self, factor: float | Tensor) -> Weights:
        """Scales every entry by a number, or each network by its own (`[B]`)."""
        if not isinstance(factor, Tensor) or factor.dim() == 0:
            return Weights(self.spec, [tensor * factor for tensor in self.groups])
        if factor.shape != (len(self),):
            raise WeightsError(f"factors have shape {list(factor.shape)}, expected [{len(self)}]")
        return Weights(self.spec, [t * factor.view(-1, *[1] * (t.dim() - 1)) for t in self.groups])

    __rmul__ = __mul__

    def __neg__(self) -> Weights:
        return self * -1.0

    def mix(self, coefficients: Tensor) -> Weights:
        """Linear combinations of the networks of this batch.

        Args:
            coefficients: `[C, B]` (or `[B]` for one combination).

        Returns:
            Weights of batch size C, `out[c] = Σ_b coefficients[c, b] · self[b]`.
        """
        coefficients = torch.atleast_2d(coefficients).to(self.device, self.dtype)
        if coefficients.shape[1] != len(self):
            raise WeightsError(
                f"coefficients have shape {list(coefficients.shape)}, expected [C, {len(self)}]"
            )
        return self.spec.from_flat(coefficients @ self.flat())

    @staticmethod
    def cat(weights: Sequence[Weights]) -> Weights:
        """Joins batches of one spec along the batch axis.

        Raises:
            WeightsError: Nothing given, or different specs.
        """
        if not weights:
            raise WeightsError("no weights to join")
        for other in weights[1:]:
            weights[0]._check_same(other)
        parts = zip(*(w.groups for w in weights), strict=True)
        out = Weights(weights[0].spec, [torch.cat(tensors) for tensors in parts])
        gains = [w.expected_gain for w in weights if w.expected_gain is not None]
        out.expected_gain = torch.cat(gains) if len(gains) == len(weights) else None
        return out

    # -- placement -----------------------------------------------------------------------------

    def to(self, *args: Any, **kwargs: Any) -> Weights:
        """Moves or casts every tensor, as `torch.Tensor.to` does."""
        return self._map(lambda tensor: tensor.to(*args, **kwargs))

    def detach(self) -> Weights:
        """Cuts the graph; the numbers are shared."""
        return self._map(Tensor.detach)

    def clone(self) -> Weights:
        """Copies the numbers."""
        return self._map(Tensor.clone)

    def requires_grad_(self, requires_grad: bool = True) -> Weights:
        """Makes the weights trainable, as the start of ordinary fine-tuning.

        Raises:
            WeightsError: They are part of a graph: `detach` them first.
        """
        # One leaf, of which the groups are views: no second copy can fall behind it.
        flat = self.flat()
        if not flat.is_leaf:
            raise WeightsError("weights that are part of a graph cannot be leaves: detach() first")
        flat.requires_grad_(requires_grad)
        # Slices: an optimiser changes the leaf in place, which views that one operation makes
        # several of (split, unbind) do not survive.
        self.groups = tuple(
            flat[:, g.offset : g.offset + g.numel].unflatten(1, (len(g), *g.shape))
            for g in self.spec.groups
        )
        self._is_leaf = True
        return self

    def parameters(self) -> list[Tensor]:
        """The tensors to give to an optimiser: the flat buffer, or the groups."""
        return [self._flat] if self._flat is not None else list(self.groups)

    # -- files ---------------------------------------------------------------------------------

    def check_finite(self) -> Weights:
        """Returns itself.

        Raises:
            WeightsError: A slot holds NaN or infinity; names the slot.
        """
        for group, tensor in zip(self.spec.groups, self.groups, strict=True):
            # A sum is read off in one pass, and cannot be finite where an entry is not.
            if bool(torch.isfinite(tensor.sum())):
                continue
            finite = torch.isfinite(tensor)
            if not bool(finite.all()):
                bad = int((~finite.reshape(*finite.shape[:2], -1).all(-1)).any(0).nonzero()[0])
                name = self.spec.slots[group.start + bad].name
                raise WeightsError(f"slot {name!r} contains NaN or infinity")
        return self

    def save(self, path: str | Path) -> None:
        """Writes the whole batch with its spec to one safetensors file, atomically.

        Raises:
            WeightsError: A slot holds NaN or infinity.
        """
        self.check_finite()
        tensors = {name: tensor.detach().cpu() for name, tensor in self.named().items()}
        if self.expected_gain is not None:
            tensors["expected_gain"] = self.expected_gain.detach().cpu()
        metadata = {
            "format": "pt",
            "hypergen.spec": json.dumps(self.spec.to_dict(), sort_keys=True),
            "hypergen.provenance": json.dumps(self.provenance, sort_keys=True),
        }
        save_safetensors(path, tensors, metadata)

    @staticmethod
    def load(path: str | Path) -> Weights:
        """Reads what `save` wrote.

        Raises:
            RunError: The file is missing or damaged.
            WeightsError: The file has no spec, or its tensors do not fit it.
        """
        metadata = load_safetensors_metadata(path)
        if "hypergen.spec" not in metadata:
            raise WeightsError(f"{path} holds no hypergen spec: it was not written by Weights.save")
        try:
            spec = WeightSpec.from_dict(json.loads(metadata["hypergen.spec"]))
            provenance = json.loads(metadata.get("hypergen.provenance", "{}"))
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise RunError(f"{path}: the spec in its header is damaged ({error!r})") from error
        tensors = load_safetensors(path)
        gain = tensors.pop("expected_gain", None)
        spec.validate(tensors)
        groups = [
            torch.stack([tensors[slot.name] for slot in spec.slots[g.start : g.stop]], dim=1)
            for g in spec.groups
        ]
        return Weights(spec, groups, expected_gain=gain, provenance=provenance)

    def save_pretrained(self, folder: str | Path, *, overwrite: bool = True) -> list[Path]:
        """Writes folders that stock PEFT (or `from_pretrained`) loads.

        One network goes into `folder` itself, several into `folder/0000`, `folder/0001`, ….

        Args:
            folder: Where to write; the parent is made if needed.
            overwrite: Replace a folder of that name.

        Returns:
            The folders written.

        Raises:
            WeightsError: A slot holds NaN or infinity.
            SpecError: The kind of spec has no file format of its own.
        """
        from hypergen.specs.files import save_folder

        self.check_finite()
        folder = Path(folder)
        if len(self) == 1:
            return [save_folder(self, folder, overwrite=overwrite)]
        return [
            save_folder(one, folder / f"{i:04d}", overwrite=overwrite) for i, one in enumerate(self)
        ]


def _index(key: int | Sequence[int] | Tensor, device: torch.device) -> Tensor:
    # At least one axis, so that a 0-dimensional index keeps the batch axis too.
    return torch.atleast_1d(torch.as_tensor(key, device=device))
