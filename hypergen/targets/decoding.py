"""Text written with generated weights, through transformers' own `generate`.

The weights are there before the first token and stay as they are: no generator is called while
decoding. Beams and several return sequences repeat the rows of a batch one by one
(`repeat_interleave`), and beams change places only within their sample, so the rows of a network
stay one block, as targets want them.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MethodType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from hypergen._utils.errors import UsageError, WeightsError
from hypergen._utils.seeding import generator as seeded
from hypergen.specs import Weights, cache_argument
from hypergen.specs.peft import structural_copy

if TYPE_CHECKING:
    from hypergen.targets.base import Target

_INPUTS = ("input_ids", "inputs_embeds", "input_features", "inputs")


@torch.no_grad()
def decode(
    target: Target, weights: Weights, seed: int | Sequence[int], options: Mapping[str, Any]
) -> Any:
    """`Target.generate`, which see."""
    options = dict(options)
    if not callable(getattr(target.model, "generate", None)):
        raise UsageError(
            f"{type(target.model).__name__} is no transformers model that writes text: it has no "
            "generate()"
        )
    given = next((options[k] for k in _INPUTS if isinstance(options.get(k), Tensor)), None)
    if given is None:
        raise UsageError("generate needs the prompts: give input_ids (or inputs_embeds)")
    samples = int(given.shape[0])
    target.check(weights, options.get("input_ids", given), options.get("attention_mask"))
    _check_padding(target.model, options)
    seeds = [seed] * samples if isinstance(seed, int) else [int(s) for s in seed]
    if len(seeds) != samples:
        raise UsageError(f"{len(seeds)} seeds for {samples} samples: give one, or one each")
    if not target.keeps_cache:
        options["use_cache"] = False
    repeats = _setting(target.model, options, "num_return_sequences")
    beams = _setting(target.model, options, "num_beams")
    plain = not any(options.get(k) for k in ("custom_generate", "assistant_model", "penalty_alpha"))
    if beams == 1 and plain and _setting(target.model, options, "do_sample"):
        options["custom_generate"] = functools.partial(_sample, seeds=seeds, repeats=repeats)
    devices = [given.device] if given.device.type == "cuda" else []
    # Sampled beams draw from torch's own stream, which must not be left changed.
    with torch.random.fork_rng(devices), target.decoder(weights, samples) as model:
        torch.manual_seed(seeds[0])
        return model.generate(**options)


def _setting(model: Any, options: Mapping[str, Any], name: str) -> int:
    """A generation option as transformers resolves it: given, or from the model's own config."""
    for source in (options.get("generation_config"), getattr(model, "generation_config", None)):
        value = options.get(name)
        value = getattr(source, name, None) if value is None else value
        if value is not None:
            return int(value)
    return 0 if name == "do_sample" else 1


def _check_padding(model: nn.Module, options: Mapping[str, Any]) -> None:
    mask = options.get("attention_mask")
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False) or mask is None:
        return
    if bool((mask[:, -1] == 0).any()):
        raise UsageError(
            "a prompt is padded on the right: what a causal model writes would follow the padding; "
            "pad on the left (tokenizer.padding_side = 'left')"
        )


# -- sampling ------------------------------------------------------------------------------------


def _sample(
    model: Any,
    input_ids: Tensor,
    logits_processor: Any,
    generation_config: Any,
    *,
    seeds: Sequence[int],
    repeats: int,
    **options: Any,
) -> Any:
    """Sampling as transformers does it, with a stream of random numbers for each row."""
    pick = _RowSampler(seeds, repeats, bool(generation_config.output_scores))
    processors = type(logits_processor)([*logits_processor, pick])
    out = type(model)._sample(
        model,
        input_ids,
        logits_processor=processors,
        generation_config=generation_config,
        **options,
    )
    if getattr(out, "scores", None) is not None:
        out.scores = tuple(pick.scores[: len(out.scores)])
    return out


class _RowSampler:
    """Draws a row's token by the inverse of its cumulative distribution, and leaves it alone.

    One number a row and step decides, so a row's text depends on its seed and on the number of its
    return sequence, not on the other rows of the batch.
    """

    def __init__(self, seeds: Sequence[int], repeats: int, keep: bool) -> None:
        self.streams = [seeded("decode", s, draw) for s in seeds for draw in range(repeats)]
        self.keep, self.scores = keep, list[Tensor]()

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if self.keep:
            self.scores.append(scores)
        draws = torch.stack([torch.rand((), generator=stream) for stream in self.streams])
        total = scores.double().softmax(-1).cumsum(-1)
        # Below the total, and past the tokens of no probability that lead.
        wanted = draws.to(total)[:, None] * total[:, -1:]
        token = torch.searchsorted(total, wanted, right=True).clamp(max=scores.shape[1] - 1)
        return torch.full_like(scores, -torch.inf).scatter(1, token, 0.0)


@contextmanager
def own_forward(model: nn.Module) -> Iterator[nn.Module]:
    """The model with the forward of its class, whose signature tells transformers what it takes."""
    views = vars(model).pop("forward", None)
    try:
        yield model
    finally:
        if views is not None:
            vars(model)["forward"] = views


# -- networks that take no hooks -----------------------------------------------------------------


def with_step(model: nn.Module, step: Callable[..., Any]) -> nn.Module:
    """A view of a transformers model that shares its tensors and whose forward is `step`.

    Args:
        model: The model.
        step: Called with the keyword arguments of a forward call; returns its output.
    """
    view = structural_copy(model)

    # transformers reads the signature to see what a model takes.
    @functools.wraps(type(model).forward)
    def forward(_: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if args:
            kwargs["input_ids"] = args[0]
        return step(**kwargs)

    setattr(view, "forward", MethodType(forward, view))  # noqa: B010  (a method, to mypy)
    return view


def prefixed_step(
    model: nn.Module,
    make_cache: Callable[[int], Any],
    length: int,
    **kwargs: Any,
) -> Any:
    """One step of decoding behind a prefix: the first fills the cache with it.

    Args:
        model: The network.
        make_cache: Number of rows → a cache that holds the prefix.
        length: Tokens of the prefix.
        **kwargs: Of the model's forward.
    """
    name = cache_argument(model)
    inputs = kwargs.get("input_ids")
    inputs = kwargs["inputs_embeds"] if inputs is None else inputs
    cache, rows = kwargs.pop(name, None), inputs.shape[0]
    again = not kwargs.get("use_cache", True)
    if again or cache is None or not cache.get_seq_length():
        cache = make_cache(rows)
    mask, positions = kwargs.get("attention_mask"), kwargs.get("position_ids")
    if mask is not None:
        kwargs["attention_mask"] = torch.cat([mask.new_ones(rows, length), mask], dim=1)
    if positions is not None:
        kwargs["position_ids"] = positions + length
    output = model(**kwargs, **{name: cache})
    if not again:
        return output
    # The next step reads all again: it must not find what this one has kept.
    return type(output)(**{key: value for key, value in output.items() if key != name})


def stacked_step(
    run: Callable[[Callable[..., Any], tuple[Any, ...]], Any],
    name: str,
    call: Callable[..., Any],
    **kwargs: Any,
) -> Any:
    """One step of decoding with networks that are traced: keys and values go in and out as tensors.

    Args:
        run: Maps a function over the networks; its arguments' tensors have their rows in blocks.
        name: What the model calls its cache.
        call: Parameters and keyword arguments → the output of one network.
        **kwargs: Of the model's forward.
    """
    from transformers.modeling_outputs import CausalLMOutputWithPast

    cache = kwargs.pop(name, None)
    shared = {k: v for k, v in kwargs.items() if not isinstance(v, Tensor)}
    tensors = {k: v for k, v in kwargs.items() if isinstance(v, Tensor)}
    rows = next(iter(tensors.values())).shape[0]
    for key, value in tensors.items():  # what is the same for all rows comes as one
        if value.shape[0] == 1 < rows:
            tensors[key] = value.expand(rows, *value.shape[1:])
    kept: list[Any] = []
    before = [] if cache is None else [_tensors_of(layer) for layer in cache.layers]

    def one(parameters: Any, tensors: dict[str, Tensor], states: list[dict[str, Tensor]]) -> Any:
        own = {}
        if cache is not None:
            own[name] = _branch(cache, states)
        output = call(parameters, {**tensors, **shared, **own})
        kept[:] = [] if cache is None else own[name].layers
        return output.logits, [_tensors_of(layer) for layer in kept]

    logits, after = run(one, (tensors, before))
    if cache is None:
        return CausalLMOutputWithPast(logits=logits)
    for layer, state in zip(kept, after, strict=True):
        vars(layer).update(state)
    cache.layers = list(kept)
    output = CausalLMOutputWithPast(logits=logits)
    output[name] = cache
    return output


def _branch(cache: Any, states: list[dict[str, Tensor]]) -> Any:
    own = copy.copy(cache)
    own.layers = [copy.copy(layer) for layer in cache.layers]
    for layer, state in zip(own.layers, states, strict=True):
        vars(layer).update(state)
    return own


def _tensors_of(layer: Any) -> dict[str, Tensor]:
    """Keys and values of a layer of a cache, by attribute.

    Raises:
        UsageError: The layer keeps something else, or writes into fixed places.
    """
    if type(layer).__name__ not in ("DynamicLayer", "DynamicSlidingWindowLayer"):
        raise UsageError(
            f"decoding by this target cannot go on from a {type(layer).__name__}: generate with "
            "use_cache=False"
        )
    return {k: v for k, v in vars(layer).items() if isinstance(v, Tensor)}


def right_padded(**kwargs: Any) -> tuple[dict[str, Any], Tensor]:
    """Left-padded prompts with the padding moved behind them.

    Methods that put virtual tokens in front of a prompt number positions from there on: padding
    between the two would shift the prompt.

    Returns:
        `input_ids` and `attention_mask`, and the place of each row's last token `[N, 1]`, counted
        from the end (-1 is the last).
    """
    ids, mask = kwargs["input_ids"], kwargs.get("attention_mask")
    mask = torch.ones_like(ids) if mask is None else mask
    padding = (mask == 0).sum(1, keepdim=True)
    at = (torch.arange(ids.shape[1], device=ids.device) + padding) % ids.shape[1]
    return {"input_ids": ids.gather(1, at), "attention_mask": mask.gather(1, at)}, -1 - padding


def refuse_encoder(model: nn.Module, what: str) -> None:
    """Raises WeightsError if the model has an encoder, whose own call no step here reaches."""
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        raise WeightsError(
            f"{what} writes with causal language models; {type(model).__name__} has an encoder: "
            "use LoRASpec or AdapterSpec"
        )
