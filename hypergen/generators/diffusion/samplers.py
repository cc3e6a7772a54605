"""From noise to data: diffusers' schedulers, and solvers of ordinary differential equations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from hypergen._utils.extras import require

SAMPLERS = {"diffusion": ("ddpm", "ddim", "dpm++", "euler"), "flow": ("euler", "heun", "rk4")}

_PREDICTIONS = {"noise": "epsilon", "data": "sample", "velocity": "v_prediction"}
Watch = Callable[[int, Tensor], None]  # (number of a step, latents after it)


def solve_diffusion(
    predict: Callable[[Tensor, int], Tensor],
    noise: Tensor,
    signal: Tensor,
    prediction: str,
    settings: Mapping[str, str],
    generators: Sequence[torch.Generator],
    watch: Watch | None = None,
) -> Tensor:
    """Samples a variance-preserving diffusion through a scheduler of diffusers.

    The scheduler is made for the given noise levels alone, as if there were no others (respacing;
    Nichol and Dhariwal, arXiv:2102.09672): each step goes from one to the next exactly, whatever
    their number, and the last to no noise at all. Nothing is clipped or thresholded.

    Args:
        predict: (x, number of the step) → prediction.
        noise: `[B, T, D]`.
        signal: `[steps]`, a² of the levels, the noisiest first, in float64.
        prediction: `"noise"`, `"data"` or `"velocity"`.
        settings: `sampler` (ddpm, ddim, dpm++, euler) and `variance` (small, large).
        generators: One for each row.
        watch: Called after every step.

    Returns:
        `[B, T, D]`.

    Raises:
        MissingExtraError: diffusers is not installed.
    """
    sampler, steps = settings["sampler"], len(signal)
    ascending = signal.flip(0)
    before = torch.cat([ascending.new_ones(1), ascending[:-1]])
    common: dict[str, Any] = {
        "num_train_timesteps": steps,
        "trained_betas": (1 - ascending / before).tolist(),
        "prediction_type": _PREDICTIONS[prediction],
        "timestep_spacing": "trailing",
    }
    file, name, options = _SCHEDULERS[sampler]
    module = require(
        f"diffusers.schedulers.{file}", "diffusion", f"sampling a diffusion by {sampler}"
    )
    if sampler == "ddpm":
        common["variance_type"] = f"fixed_{settings['variance']}"
    scheduler = getattr(module, name)(**common, **options)
    # What it works out of the differences would have lost digits.
    scheduler.alphas_cumprod = ascending.float()
    scheduler.set_timesteps(steps)
    x = noise
    if sampler == "euler":
        # Euler's latents are data + sigma · noise; ours are those times a.
        x = noise * (scheduler.sigmas[0] ** 2 + 1).sqrt()
    for step, time in enumerate(scheduler.timesteps):
        seen = scheduler.scale_model_input(x, time)
        output = predict(seen, step)
        draws = {"generator": list(generators)} if sampler == "ddpm" else {}
        x = scheduler.step(output, time, x, return_dict=False, **draws)[0]
        if watch is not None:
            watch(step, x)
    return x


_SCHEDULERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "ddpm": ("scheduling_ddpm", "DDPMScheduler", {"clip_sample": False}),
    "ddim": ("scheduling_ddim", "DDIMScheduler", {"clip_sample": False}),
    "dpm++": (
        "scheduling_dpmsolver_multistep",
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "dpmsolver++", "solver_order": 2},
    ),
    "euler": ("scheduling_euler_discrete", "EulerDiscreteScheduler", {}),
}


def solve_flow(
    velocity: Callable[[Tensor, float], Tensor],
    noise: Tensor,
    sampler: str,
    steps: int,
    watch: Watch | None = None,
) -> Tensor:
    """Solves dx/dt = v(x, t) from t = 1 to 0 on evenly spaced times.

    Args:
        velocity: (x, t) → v, never asked for at t = 0.
        noise: x at t = 1, `[B, T, D]`.
        sampler: `"euler"`, `"heun"` or `"rk4"`.
        steps: Number of steps; the last is one of Euler's.
        watch: Called after every step.

    Returns:
        x at t = 0, `[B, T, D]`.

    Raises:
        MissingExtraError: The sampler is `"euler"`, and diffusers is not installed.
    """
    if sampler == "euler":
        return _flow_by_diffusers(velocity, noise, steps, watch)
    x = noise
    for step in range(steps):
        time, after = 1 - step / steps, 1 - (step + 1) / steps
        width = after - time
        first = velocity(x, time)
        if step == steps - 1:
            x = x - time * first
        elif sampler == "heun":
            second = velocity(x + width * first, after)
            x = x + width * (first + second) / 2
        else:
            half = time + width / 2
            second = velocity(x + width / 2 * first, half)
            third = velocity(x + width / 2 * second, half)
            fourth = velocity(x + width * third, after)
            x = x + width * (first + 2 * second + 2 * third + fourth) / 6
        if watch is not None:
            watch(step, x)
    return x


def _flow_by_diffusers(
    velocity: Callable[[Tensor, float], Tensor], noise: Tensor, steps: int, watch: Watch | None
) -> Tensor:
    module = require(
        "diffusers.schedulers.scheduling_flow_match_euler_discrete",
        "diffusion",
        "sampling a flow by euler",
    )
    scheduler = module.FlowMatchEulerDiscreteScheduler()
    times = [1 - step / steps for step in range(steps)]
    scheduler.set_timesteps(sigmas=times)
    scheduler.set_begin_index(0)
    x = noise
    for step, (time, label) in enumerate(zip(times, scheduler.timesteps, strict=True)):
        x = scheduler.step(velocity(x, time), label, x, return_dict=False)[0]
        if watch is not None:
            watch(step, x)
    return x
