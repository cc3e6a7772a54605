"""What networks are for: splits, batches and losses."""

from __future__ import annotations

import json

import pytest
import torch

from hypergen.errors import RunError, UsageError
from hypergen.zoo.architectures import ImageProblem, LearningProblem, Signature, TextProblem
from hypergen.zoo.architectures.problems import augmented

TEXT = "".join(chr(97 + (7 * i * i) % 19) for i in range(2000)) + "é\n"


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return TextProblem(str(path), context=8)


def test_digits_are_classified():
    problem = ImageProblem()
    assert problem.signature == Signature("images", (1, 8, 8), 10)
    assert sum(problem.size(s) for s in ("train", "val", "test")) == 1797
    images, labels = problem.draw(5, torch.Generator().manual_seed(0))
    assert images.shape == (5, 1, 8, 8)
    assert labels.shape == (5,)
    again = problem.draw(5, torch.Generator().manual_seed(0))
    assert torch.equal(images, again[0])


def test_shifted_images_are_parts_of_the_padded_ones():
    images = torch.randn(64, 2, 8, 8)
    moved = augmented(images, torch.Generator().manual_seed(0), flip=True)
    assert moved.shape == images.shape
    padded = torch.nn.functional.pad(images, (1, 1, 1, 1))
    both = [padded, padded.flip(3)]
    windows = [p[:, :, i : i + 8, j : j + 8] for p in both for i in range(3) for j in range(3)]
    hits = torch.stack([(w == moved).all((1, 2, 3)) for w in windows])
    assert (hits.sum(0) == 1).all()
    assert (hits.sum(1) > 0).sum() > 12  # of 18 ways


def test_training_images_alone_are_changed():
    problem = ImageProblem(augment=True)
    draw = [p.draw(40, torch.Generator().manual_seed(1)) for p in (problem, ImageProblem())]
    assert torch.equal(draw[0][1], draw[1][1])
    assert not torch.equal(draw[0][0], draw[1][0])
    draw = [p.draw(40, torch.Generator().manual_seed(1), "val") for p in (problem, ImageProblem())]
    assert torch.equal(draw[0][0], draw[1][0])


def test_characters_are_followed_by_the_next(text):
    assert text.characters == "".join(sorted(set(TEXT)))
    assert text.signature == Signature("tokens", (8,), len(set(TEXT)))
    for split, first in (("train", 0), ("val", 1801), ("test", 1901)):
        inputs, targets = text.batch(split, torch.tensor([0, 1]))
        assert torch.equal(inputs[:, 1:], targets[:, :-1])
        assert "".join(text.characters[i] for i in inputs[0]) == TEXT[first : first + 8]
        step = 1 if split == "train" else 8
        start = first + step
        assert "".join(text.characters[i] for i in inputs[1]) == TEXT[start : start + 8]
        last = text.batch(split, torch.tensor([text.size(split) - 1]))
        assert last[0].shape == (1, 8)


def test_the_loss_is_cross_entropy_and_smoothing_raises_it(text):
    targets = torch.tensor([[1, 2], [3, 0]])
    sure = torch.nn.functional.one_hot(targets, 5).float() * 50
    assert text.loss(sure, targets) < 1e-6
    assert text.loss(sure, targets, smoothing=0.1) > 1
    assert text.correct(sure, targets).tolist() == [1, 1]
    assert text.correct(sure, (targets + 1) % 5).tolist() == [0, 0]
    even = ImageProblem().loss(torch.zeros(3, 10), torch.tensor([1, 2, 3]))
    assert float(even) == pytest.approx(2.302585, abs=1e-5)


def test_problems_are_rebuilt_from_json(text):
    for problem in (text, ImageProblem(augment=True)):
        assert LearningProblem.from_dict(json.loads(json.dumps(problem.to_dict()))) == problem
    with pytest.raises(RunError, match="not a problem"):
        LearningProblem.from_dict({"class": "ImageProblem", "init_args": {"sauce": 1}})


def test_bad_input_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.delenv("HYPERGEN_DATA", raising=False)
    with pytest.raises(UsageError, match="cifar10"):
        ImageProblem("cifar")
    with pytest.raises(UsageError, match="digits"):
        ImageProblem("digits", pixels=4)
    with pytest.raises(RunError, match="HYPERGEN_DATA"):
        _ = TextProblem().signature
    with pytest.raises(RunError, match="HYPERGEN_DATA"):
        _ = ImageProblem("cifar10").signature
    with pytest.raises(RunError, match=str(tmp_path)):
        _ = ImageProblem("cifar10", folder=str(tmp_path)).signature
    with pytest.raises(UsageError, match="cannot be read"):
        _ = TextProblem(str(tmp_path / "none.txt")).signature
    with pytest.raises(UsageError, match="context"):
        TextProblem("x", context=1)
    short = tmp_path / "short.txt"
    short.write_text("ab" * 20)
    with pytest.raises(UsageError, match="too short"):
        TextProblem(str(short), context=64).size("val")
