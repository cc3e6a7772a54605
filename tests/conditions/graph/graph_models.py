"""Models of transformers, tiny, from configs."""

from __future__ import annotations

from collections.abc import Callable

import transformers as t
from torch import nn


def _text(**more: object) -> dict[str, object]:
    sizes = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2}
    return {**sizes, "num_attention_heads": 2, "intermediate_size": 32, **more}


def _vision(**more: object) -> dict[str, object]:
    sizes = {"image_size": 32, "patch_size": 8, "hidden_size": 16, "num_hidden_layers": 2}
    return {**sizes, "num_attention_heads": 2, "intermediate_size": 32, **more}


def gpt2() -> nn.Module:
    return t.GPT2LMHeadModel(
        t.GPT2Config(vocab_size=40, n_positions=16, n_embd=16, n_layer=2, n_head=2)
    )


def llama() -> nn.Module:
    return t.LlamaForCausalLM(t.LlamaConfig(**_text(num_key_value_heads=1)))


def qwen2() -> nn.Module:
    return t.Qwen2ForCausalLM(
        t.Qwen2Config(**_text(num_key_value_heads=1, tie_word_embeddings=True))
    )


def gemma2() -> nn.Module:
    return t.Gemma2ForCausalLM(t.Gemma2Config(**_text(num_key_value_heads=1, head_dim=8)))


def bert() -> nn.Module:
    return t.BertForSequenceClassification(
        t.BertConfig(**_text(max_position_embeddings=16, num_labels=3))
    )


def t5() -> nn.Module:
    config = t.T5Config(vocab_size=40, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
    return t.T5ForConditionalGeneration(config)


def mamba() -> nn.Module:
    config = t.MambaConfig(vocab_size=40, hidden_size=16, state_size=4, num_hidden_layers=2)
    return t.MambaForCausalLM(config)


def vit() -> nn.Module:
    return t.ViTForImageClassification(t.ViTConfig(**_vision()))


def convnext() -> nn.Module:
    config = t.ConvNextConfig(hidden_sizes=[8, 16], depths=[2, 2], num_stages=2)
    return t.ConvNextForImageClassification(config)


def resnet() -> nn.Module:
    config = t.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[2, 2])
    return t.ResNetForImageClassification(config)


def swin() -> nn.Module:
    sizes = {"image_size": 32, "patch_size": 2, "embed_dim": 8, "window_size": 4}
    return t.SwinForImageClassification(t.SwinConfig(**sizes, depths=[2, 2], num_heads=[2, 2]))


def clip() -> nn.Module:
    text = _text(max_position_embeddings=16)
    return t.CLIPModel(t.CLIPConfig(text_config=text, vision_config=_vision(), projection_dim=8))


def whisper() -> nn.Module:
    config = t.WhisperConfig(
        vocab_size=40, d_model=16, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, num_mel_bins=8,
        max_source_positions=16, max_target_positions=16, pad_token_id=0, bos_token_id=1,
        eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    return t.WhisperForConditionalGeneration(config)


def wav2vec2() -> nn.Module:
    config = t.Wav2Vec2Config(
        **_text(), conv_dim=(8, 8), conv_stride=(5, 2), conv_kernel=(10, 3),
        num_feat_extract_layers=2, num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    return t.Wav2Vec2ForCTC(config)


def videomae() -> nn.Module:
    sizes = _vision(num_frames=4, tubelet_size=2)
    return t.VideoMAEForVideoClassification(t.VideoMAEConfig(**sizes))


def mixtral() -> nn.Module:
    sizes = _text(num_key_value_heads=1, num_local_experts=2)
    return t.MixtralForCausalLM(t.MixtralConfig(**sizes))


MODELS: dict[str, Callable[[], nn.Module]] = {
    f.__name__: f
    for f in (
        gpt2, llama, qwen2, gemma2, bert, t5, mamba, vit, convnext, resnet, swin, clip, whisper,
        wav2vec2, videomae,
    )
}  # fmt: skip
