"""Sampled weights: codecs to and from latents, processes, and denoisers of latents."""

from hypergen.generators.diffusion.codec import WeightCodec
from hypergen.generators.diffusion.conv_codec import ConvCodec
from hypergen.generators.diffusion.conv_denoiser import ConvDenoiser
from hypergen.generators.diffusion.ddpm import Diffusion
from hypergen.generators.diffusion.denoiser import Denoiser, TimeEmbedding, sinusoid
from hypergen.generators.diffusion.denoising import Denoising
from hypergen.generators.diffusion.density import KDEGenerator
from hypergen.generators.diffusion.dit import DiT
from hypergen.generators.diffusion.flow_matching import FlowMatching
from hypergen.generators.diffusion.g_pt import GPt
from hypergen.generators.diffusion.generator import DiffusionGenerator
from hypergen.generators.diffusion.lora_codec import LoRACodec
from hypergen.generators.diffusion.minimiser import Minimiser
from hypergen.generators.diffusion.mlp_denoiser import MLPDenoiser
from hypergen.generators.diffusion.pca_codec import PCACodec
from hypergen.generators.diffusion.process import Process
from hypergen.generators.diffusion.recurrent import RecurrentDenoiser
from hypergen.generators.diffusion.sequence_codec import SequenceCodec
from hypergen.generators.diffusion.token_codec import TokenCodec
from hypergen.generators.diffusion.update_denoiser import UpdateDenoiser

__all__ = [
    "ConvCodec",
    "ConvDenoiser",
    "Denoiser",
    "Denoising",
    "DiT",
    "Diffusion",
    "DiffusionGenerator",
    "FlowMatching",
    "GPt",
    "KDEGenerator",
    "LoRACodec",
    "MLPDenoiser",
    "Minimiser",
    "PCACodec",
    "Process",
    "RecurrentDenoiser",
    "SequenceCodec",
    "TimeEmbedding",
    "TokenCodec",
    "UpdateDenoiser",
    "WeightCodec",
    "sinusoid",
]
