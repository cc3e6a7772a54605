"""Images as networks."""

from __future__ import annotations

import pytest
import torch
from tiny_stacks import Blobs

from hypergen.errors import UsageError
from hypergen.zoo.ensemble import Digits, ImageFit, Member, train_ensemble
from hypergen.zoo.networks import SIREN


def test_targets_are_the_pixels_at_the_coordinates():
    problem = ImageFit(Digits(), 3)
    image = Digits().load().images["train"][1, 0]
    assert problem.inputs("train").shape == (64, 2)
    assert problem.inputs("train").abs().max() < 1
    index = torch.tensor([[9, 63]])  # row 1, column 1 and the last pixel
    values = problem.targets("train", torch.tensor([1]), index)[0, :, 0]
    scaled = (image - image.min()) / (image.max() - image.min()) * 2 - 1
    torch.testing.assert_close(values, torch.stack([scaled[1, 1], scaled[7, 7]]))
    assert problem.inputs("train")[9].tolist() == [-0.625, -0.625]
    assert problem.pixels.amin() == -1


def test_tasks_name_what_the_image_shows():
    problem = ImageFit(Blobs(), 2)
    assert [task.metadata["class"] for task in problem.tasks.values()] == ["a", "b"]
    assert len(problem.tasks) == 2


def test_a_stack_of_sirens_fits_its_images():
    problem = ImageFit(Digits(), 4)
    members = [Member(i, i, 5e-3) for i in range(4)]
    done = train_ensemble(
        SIREN(hidden=(24, 24), omega=10.0),
        members,
        problem,
        steps=300,
        batch_size=64,
        save_steps=(0, 300),
    )
    psnr, loss = done.metrics["train"]["psnr"], done.metrics["train"]["loss"]
    assert (psnr[1] > 25).all()
    assert (psnr[0] < 15).all()
    torch.testing.assert_close(psnr, 10 * torch.log10(4 / loss))


def test_the_written_out_gradient_is_that_of_the_loss():
    problem = ImageFit(Blobs((3, 4, 4)), 2)
    outputs = torch.randn(2, 3, 7, requires_grad=True)
    targets = torch.randn(2, 7, 3)
    total = sum(problem.loss(outputs[i].T, targets[i]) for i in range(2))
    (expected,) = torch.autograd.grad(total, outputs)
    written = torch.empty(2, 3, 7)
    assert problem.output_gradient(outputs.detach(), targets, written)
    torch.testing.assert_close(written, expected)


def test_too_many_images_are_refused():
    with pytest.raises(UsageError, match="has 60 images, 61 are wanted"):
        len(ImageFit(Blobs(), 61).pixels)
    with pytest.raises(UsageError, match="at least 1"):
        ImageFit(Blobs(), 0)
