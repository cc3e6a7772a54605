"""Sampled weights: codecs to and from latents, processes, and denoisers of latents."""

from hypergen.generators.diffusion.codec import WeightCodec
from hypergen.generators.diffusion.denoiser import Denoiser, TimeEmbedding, sinusoid

__all__ = ["Denoiser", "TimeEmbedding", "WeightCodec", "sinusoid"]
