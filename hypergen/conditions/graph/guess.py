"""Example inputs for a network of which only the network is known."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from hypergen.conditions.graph.inputs import (
    BATCH,
    Example,
    floating_type,
    forward_arguments,
    make_tensor,
    required_arguments,
    unwrapped,
)

TOKENS = 4  # recurrences that run in Python repeat their step for each
_SIDES = (64, 224, 32, 28, 299)
_TEXT = ("input_ids", "decoder_input_ids")


def guesses(module: nn.Module) -> Iterator[Example]:
    """Examples to try, the likeliest first; none if nothing is known of the module."""
    for m in unwrapped(module):
        if hasattr(m, "main_input_name") and hasattr(m, "config"):
            yield from _transformers(m)
            return
    required = required_arguments(module)
    dtype = floating_type(module)
    shapes = list(dict.fromkeys(_shapes(module)))
    rest = required[1:]
    if rest[:1] == ["edge_index"]:  # a graph network: a ring of nodes
        extra = _graph_arguments(module, rest)
        if extra is not None:
            for shape in shapes:
                if len(shape) == 2:
                    x = make_tensor((TOKENS, shape[1]), _dtype(shape, dtype, module))
                    yield Example((x, *extra))
        return
    for shape in shapes:
        x = make_tensor(shape, _dtype(shape, dtype, module))
        # Networks of two inputs often take two of one kind: sequences, views, images.
        yield Example((x, *(x.clone() for _ in rest)))
    if not required and not shapes:
        yield Example()


def _dtype(shape: tuple[int, ...], dtype: torch.dtype, module: nn.Module) -> torch.dtype:
    first = _first_layer(module)
    return torch.int64 if isinstance(first, (nn.Embedding, nn.EmbeddingBag)) else dtype


def _graph_arguments(module: nn.Module, names: list[str]) -> tuple[Tensor, ...] | None:
    nodes = torch.arange(TOKENS)
    known = {
        "edge_index": torch.stack([nodes, nodes.roll(-1)]),
        "batch": torch.zeros(TOKENS, dtype=torch.int64),
    }
    return tuple(known[name] for name in names) if all(n in known for n in names) else None


def _first_layer(module: nn.Module) -> nn.Module | None:
    """The first module with a known kind of input, in the order of definition."""
    return next((m for m in module.modules() if _of_layer(m)), None)


def _of_layer(layer: nn.Module) -> list[tuple[int, ...]]:
    """Shapes that a layer takes."""
    if isinstance(getattr(layer, "base_layer", None), nn.Module):
        return []  # an adapter's wrapper: the layer in it comes next
    count: Any = getattr(layer, "in_channels", None)
    if isinstance(layer, (nn.Conv1d, nn.ConvTranspose1d)):
        return [(BATCH, count, side) for side in (64, 16)]
    if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
        return [(BATCH, count, side, side) for side in _SIDES]
    if isinstance(layer, (nn.Conv3d, nn.ConvTranspose3d)):
        return [(BATCH, count, side, side, side) for side in (16, 32)]
    if isinstance(layer, nn.RNNBase):
        return [(BATCH, TOKENS, layer.input_size)]
    if isinstance(layer, nn.RNNCellBase):
        return [(BATCH, layer.input_size)]
    if isinstance(layer, nn.Embedding):
        return [(BATCH, TOKENS), (BATCH,)]
    if isinstance(layer, nn.EmbeddingBag):
        return [(BATCH, TOKENS)]
    if isinstance(layer, nn.MultiheadAttention):
        return [(BATCH, TOKENS, layer.embed_dim)]
    if isinstance(layer, (nn.BatchNorm1d, nn.InstanceNorm1d)):
        return [(BATCH, layer.num_features), (BATCH, layer.num_features, 16)]
    if isinstance(layer, (nn.BatchNorm2d, nn.InstanceNorm2d)):
        return [(BATCH, layer.num_features, 32, 32)]
    if isinstance(layer, nn.LayerNorm):
        return [(BATCH, TOKENS, *layer.normalized_shape)]
    if isinstance(layer, nn.GroupNorm):
        return [(BATCH, layer.num_channels, 32, 32)]
    features = getattr(layer, "in_features", count)
    # Also quantised kin of Linear; not what holds layers, and may reshape before the first.
    if type(features) is int and features > 0 and not any(layer.children()):
        return [(BATCH, features), (BATCH, TOKENS, features)]
    return []


def _shapes(module: nn.Module) -> Iterator[tuple[int, ...]]:
    first = _first_layer(module)
    shapes = _of_layer(first) if first is not None else []
    yield from shapes
    if first is None:  # bare parameters: their last axis, most likely
        for parameter in module.parameters():
            if parameter.dim():
                yield (BATCH, parameter.shape[-1])
                yield (BATCH, parameter.shape[0])
                yield (BATCH, TOKENS, parameter.shape[-1])
                break
    elif len(shapes[0]) == 2 and isinstance(first, nn.Linear):
        # A flattened picture may be given as one.
        side = int(first.in_features**0.5)
        if side * side == first.in_features:
            yield (BATCH, 1, side, side)


def _transformers(model: Any) -> Iterator[Example]:
    """Inputs of a transformers model, from its config and the names that its forward takes."""
    named = forward_arguments(model)
    config = model.config
    dtype = floating_type(model)
    fixed: dict[str, Any] = {"use_cache": False} if "use_cache" in named else {}
    main = model.main_input_name
    names = [main] if isinstance(main, str) else list(main)
    required = [n for n in required_arguments(model) if n in _KNOWN]
    two_towers = hasattr(config, "text_config") and hasattr(config, "vision_config")
    wanted = list(dict.fromkeys([*names, *required, *(["pixel_values"] if two_towers else [])]))
    if two_towers and "input_ids" in named and "input_ids" not in wanted:
        wanted.append("input_ids")
    encoder_decoder = getattr(config, "is_encoder_decoder", False)
    if encoder_decoder and "decoder_input_ids" in named:
        wanted.append("decoder_input_ids")
    wanted = [name for name in wanted if name in named]
    for side in dict.fromkeys([_side(config), *_SIDES]):
        kwargs: dict[str, Any] = {}
        for name in wanted:
            tensor = _named(name, config, dtype, side)
            if tensor is not None:
                kwargs[name] = tensor
        yield Example((), {**kwargs, **fixed})
        if "pixel_values" not in kwargs:
            break
    if two_towers and "pixel_values" in wanted:  # text alone
        ids = _named("input_ids", config, dtype, 0)
        yield Example((), {"input_ids": ids, **fixed})


_KNOWN = frozenset(
    [
        "input_ids",
        "decoder_input_ids",
        "pixel_values",
        "input_values",
        "input_features",
        "attention_mask",
        "inputs_embeds",
    ]
)


def _named(name: str, config: Any, dtype: torch.dtype, side: int) -> Tensor | None:
    if name in _TEXT:
        text = _part(config, "text_config", "text_encoder")
        eos = getattr(text, "eos_token_id", None)
        size = getattr(text, "vocab_size", 8)
        ids = torch.arange(1, TOKENS + 1).clamp(max=max(0, size - 1)).repeat(BATCH, 1)
        if type(eos) is int and 0 <= eos < size:
            ids[:, -1] = eos  # where some read off the whole text
        return ids
    if name == "attention_mask":
        return torch.ones(BATCH, TOKENS, dtype=torch.int64)
    if name == "inputs_embeds":
        return make_tensor((BATCH, TOKENS, config.hidden_size), dtype)
    if name == "pixel_values":
        vision = _part(config, "vision_config", "backbone_config", "encoder")
        frames = getattr(config, "num_frames", None)
        before = (BATCH, frames) if type(frames) is int else (BATCH,)
        sides = _sides(config, vision, side)
        return make_tensor((*before, _channels(config, vision), *sides), dtype)
    if name == "input_features":
        audio = _part(config, "audio_config", "encoder")
        mels: Any = getattr(audio, "num_mel_bins", None) or getattr(audio, "feature_size", 80)
        frames = 2 * getattr(audio, "max_source_positions", 64)
        return make_tensor((BATCH, mels, frames), dtype)
    if name == "input_values":
        if hasattr(config, "num_mel_bins") and hasattr(config, "max_length"):
            return make_tensor((BATCH, config.max_length, config.num_mel_bins), dtype)
        channels = getattr(config, "audio_channels", None)
        before = (BATCH, channels) if type(channels) is int else (BATCH,)
        return make_tensor((*before, 4000), dtype)
    return None


def _part(config: Any, *names: str) -> Any:
    return next((getattr(config, n) for n in names if getattr(config, n, None) is not None), config)


def _channels(config: Any, vision: Any) -> int:
    return int(getattr(vision, "num_channels", None) or getattr(config, "num_channels", None) or 3)


def _size(config: Any) -> Any:
    vision = _part(config, "vision_config", "backbone_config", "encoder")
    return getattr(vision, "image_size", None) or getattr(config, "image_size", None)


def _side(config: Any) -> int:
    size = _size(config)
    return size if type(size) is int else _SIDES[0]


def _sides(config: Any, vision: Any, side: int) -> tuple[int, int]:
    size = _size(config)
    if isinstance(size, (list, tuple)) and len(size) == 2:
        return int(size[0]), int(size[1])
    return side, side
