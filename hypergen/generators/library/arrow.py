"""Routing by the directions that experts change most (Arrow)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from hypergen._utils.errors import ConditionError, SpecError
from hypergen.conditions import Condition, ConditionEncoder
from hypergen.generators.library.base import LibraryGenerator, check_mixing
from hypergen.generators.library.experts import Experts, top_softmax
from hypergen.specs import LoRASpec, Weights, WeightSpec
from hypergen.specs.merging import mix_slots, mix_updates, pairs_by_group

if TYPE_CHECKING:
    from typing_extensions import Self


class ModuleInputs(ConditionEncoder):
    """Takes what the adapted modules of a frozen network receive; see `module_inputs`.

    Args:
        width: Sum of the modules' input widths.
    """

    input_name: ClassVar[str] = "module_inputs"

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    @property
    def dim(self) -> int:
        """Sum of the modules' input widths."""
        return self.width

    def config(self) -> dict[str, Any]:
        """Constructor arguments."""
        return {"width": self.width}

    def forward(self, inputs: Tensor) -> Condition:
        """`[B, T, D]` hidden states, or one for each row, `[B, D]`, as tokens.

        Raises:
            ConditionError: Another shape.
        """
        tokens = inputs[:, None] if inputs.dim() == 2 else inputs
        if tokens.dim() != 3 or tokens.shape[-1] != self.width:
            raise ConditionError(
                f"module inputs have shape {list(inputs.shape)}, expected [B, {self.width}] or "
                f"[B, T, {self.width}]"
            )
        return Condition.from_tokens(tokens)


class ArrowRouting(LibraryGenerator):
    """LoRAs mixed module by module, by how much the module's input lies along each one's arrow.

    Ostapenko et al., "Towards Modular LLMs by Building and Reusing a Library of LoRAs", ICML 2024,
    arXiv:2405.11157. The arrow of an expert in a module is the top right singular vector of its
    update ΔW; the logit of the expert is |arrow · input|, and the softmax of the `top_k` largest
    logits weighs the experts. No training, and no descriptions of the experts.

    What differs: the paper routes every token of every input anew while the network runs. Here
    weights are generated once for a condition, so each module has one set of coefficients. The
    condition holds what each module of the *unadapted* network receives when it reads the task's
    demos or description (`module_inputs`): with one token a row that is its mean hidden state;
    with several, logits are the mean of |arrow · input| over them, which does not let opposite
    tokens cancel.

    Args:
        spec: A `LoRASpec` of linear modules.
        encoder: `ModuleInputs` of the sum of the modules' input widths.
        experts: Names of the experts; given by `from_weights` or the data module.
        descriptions: Number of their descriptions, which are not used.
        top_k: Experts that are mixed in a module; all when None.
        temperature: Divides the logits.
        mix: `"tensors"` mixes A and B, `"updates"` ΔW; see `WeightedExperts`.

    Raises:
        SpecError: The spec is no LoRA, adapts embeddings, or does not fit the encoder.
    """

    def __init__(
        self,
        spec: WeightSpec,
        encoder: ConditionEncoder,
        experts: Sequence[str] = (),
        descriptions: int = 0,
        top_k: int | None = 4,
        temperature: float = 1.0,
        mix: Literal["tensors", "updates"] = "tensors",
    ) -> None:
        config = {"top_k": top_k, "temperature": temperature, "mix": mix}
        super().__init__(spec, encoder, experts, descriptions, config)
        check_mixing(top_k, temperature, mix, spec)
        self.widths = input_widths(spec)
        if encoder.dim != sum(self.widths):
            raise SpecError(
                f"the modules' inputs have {sum(self.widths)} numbers, the encoder gives "
                f"{encoder.dim}: use ModuleInputs({sum(self.widths)})"
            )
        self.top_k, self.temperature, self.mix = top_k, temperature, mix
        assert isinstance(spec, LoRASpec)
        numbers = {module: i for i, module in enumerate(spec.modules)}
        index = torch.tensor([numbers[slot.module] for slot in spec])
        self.register_buffer("module_of", index, persistent=False)
        self.module_of: Tensor
        self.register_buffer("arrows", torch.zeros(len(experts), encoder.dim), persistent=False)
        self.arrows: Tensor
        self.register_load_state_dict_post_hook(_refresh)

    @classmethod
    def from_weights(
        cls,
        weights: Weights,
        descriptions: Sequence[Any] | None = None,
        encoder: ConditionEncoder | None = None,
        **options: Any,
    ) -> Self:
        """Builds a generator on trained LoRAs.

        Args:
            weights: `E` LoRAs of one spec.
            descriptions: `E` names for them; they do not matter for the routing.
            encoder: The encoder; the fitting `ModuleInputs` when not given.
            **options: Further arguments of the constructor.

        Raises:
            WeightsError: An expert holds NaN or infinity, or there are more or fewer names.
        """
        encoder = ModuleInputs(sum(input_widths(weights.spec))) if encoder is None else encoder
        generator = cls(weights.spec, encoder, **options)
        names = [f"expert {i}" for i in range(len(weights))]
        if descriptions is not None:
            names = [str(d[0] if isinstance(d, list | tuple) else d) for d in descriptions]
        none = torch.zeros(0, dtype=torch.long)
        generator.fill(Experts(weights, torch.zeros(0, encoder.dim), none, none, names))
        return generator.eval()

    def fill(self, experts: Experts) -> None:
        """Takes these experts in place of those that are there, and finds their arrows."""
        super().fill(experts)
        _refresh(self, None)

    def prepare(self, data: Any) -> None:
        """Takes the networks of a data module's zoo, whose descriptions are not those it reads."""
        if not len(self.library):
            experts = data.experts().merged()
            none = torch.zeros(0, dtype=torch.long)
            empty = torch.zeros(0, self.encoder.dim)
            self.fill(Experts(experts.weights, empty, none, none, experts.names))

    def route(self, condition: Condition, without: Tensor | None = None) -> Tensor:
        """Coefficients of the experts in each module, `[B, modules, E]`.

        Args:
            condition: `[B]` conditions whose tokens are the modules' inputs, side by side in the
                order of `spec.modules`.
            without: `[B, E]` bool, experts that a row must not use.
        """
        if not len(self.library):
            raise ConditionError("the library holds no experts: build it with from_weights")
        share = condition.mask / condition.mask.sum(1, keepdim=True)
        logits = []
        # Widths differ from module to module; those of one width in a row are one product.
        start = 0
        for count, width in runs(self.widths):
            part = slice(start, start + count * width)
            tokens = condition.tokens[..., part].unflatten(-1, (count, width))
            arrows = self.arrows[:, part].unflatten(-1, (count, width))
            along = torch.einsum("btmi,emi->btme", tokens, arrows).abs()
            logits.append(torch.einsum("btme,bt->bme", along, share))
            start = part.stop
        joined = torch.cat(logits, dim=1)
        if without is not None:
            joined = joined.masked_fill(without[:, None], -torch.inf)
        return top_softmax(joined, self.top_k, self.temperature)

    def forward(self, condition: Condition, without: Tensor | None = None) -> Weights:
        """Mixes the experts for each row of the condition; see `route`."""
        coefficients = self.route(condition, without)
        experts = self.library.stored()
        if self.mix == "tensors":
            return mix_slots(experts, coefficients[:, self.module_of])
        count = len(self.library) if self.top_k is None else min(self.top_k, len(self.library))
        share, index = coefficients.topk(count, dim=-1)
        return mix_updates(experts, share, index)


@torch.no_grad()
def arrows(weights: Weights) -> Tensor:
    """Top right singular vectors of LoRA updates.

    Args:
        weights: `E` LoRAs.

    Returns:
        `[E, sum of input widths]`, unit vectors side by side in the order of `spec.modules`; their
        signs mean nothing. Zero where the update is zero.
    """
    spec = weights.spec
    widths = input_widths(spec)
    assert isinstance(spec, LoRASpec)
    found: list[Tensor] = [weights.groups[0].new_empty(0)] * len(widths)
    for (of_a, of_b), rows in pairs_by_group(spec).items():
        a_at, b_at, modules = (list(column) for column in zip(*rows, strict=True))
        a, b = weights.groups[of_a][:, a_at].double(), weights.groups[of_b][:, b_at].double()
        q_a, r_a = torch.linalg.qr(a.mT)
        _, s, vh = torch.linalg.svd(b @ r_a.mT, full_matrices=False)
        top = (q_a @ vh[..., :1, :].mT)[..., 0] * (s[..., :1] > 0)
        for position, module in enumerate(modules):
            found[module] = top[:, position].to(weights.dtype)
    return torch.cat(found, dim=1)


@torch.no_grad()
def module_inputs(
    model: nn.Module, spec: WeightSpec, run: Callable[[nn.Module], Any], mean: bool = True
) -> Tensor:
    """What the adapted modules of a network receive: the conditions of `ArrowRouting`.

    Args:
        model: The unadapted network.
        spec: The LoRAs' spec, which names the modules.
        run: Runs the network on a batch of B rows: demos or descriptions of B tasks.
        mean: Average over the tokens of a row; without it every module must see equally many. Rows
            of different lengths must be run apart: padding would be averaged too.

    Returns:
        `[B, D]`, or `[B, T, D]` without `mean`, for `generate(module_inputs=…)`.

    Raises:
        ConditionError: A module was not run.
    """
    assert isinstance(spec, LoRASpec)
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, given: tuple[Any, ...]) -> None:
            seen[name] = given[0].detach().flatten(1, -2) if given[0].dim() > 2 else given[0]

        return hook

    handles = [
        model.get_submodule(name).register_forward_pre_hook(keep(name)) for name in spec.modules
    ]
    try:
        run(model)
    finally:
        for handle in handles:
            handle.remove()
    for name in spec.modules:
        if name not in seen:
            raise ConditionError(f"module {name!r} was not run")
    parts = [seen[name] if seen[name].dim() == 3 else seen[name][:, None] for name in spec.modules]
    return torch.cat([p.mean(1) if mean else p for p in parts], dim=-1)


def input_widths(spec: WeightSpec) -> list[int]:
    """Input width of each module of a LoRA, in the order of `spec.modules`.

    Raises:
        SpecError: The spec is no LoRA, or adapts an embedding.
    """
    if not isinstance(spec, LoRASpec):
        raise SpecError(f"ArrowRouting needs a LoRASpec, not {type(spec).__name__}")
    for module in spec.modules:
        if spec.config["modules"][module]["type"] == "embedding":
            raise SpecError(f"{module!r} is an embedding: it has no input vector to route by")
    return [spec[spec.pair_names(module)[0]].shape[1] for module in spec.modules]


def runs(values: Sequence[int]) -> list[tuple[int, int]]:
    """Lengths and values of runs of equal neighbours."""
    out: list[tuple[int, int]] = []
    for value in values:
        if out and out[-1][1] == value:
            out[-1] = (out[-1][0] + 1, value)
        else:
            out.append((1, value))
    return out


def _refresh(generator: nn.Module, _: Any) -> None:
    """Arrows follow from the experts: they are not saved."""
    assert isinstance(generator, ArrowRouting)
    if len(generator.library):
        generator.arrows = arrows(generator.library.stored())
