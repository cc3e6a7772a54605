"""Tasks over classes: answers, names, families, descriptions, gradients."""

from __future__ import annotations

import pytest
import torch
from tiny_stacks import Blobs

from hypergen.errors import UsageError
from hypergen.zoo.ensemble import Classification, Digits


def test_all_classes_are_one_task():
    problem = Classification(Blobs())
    assert list(problem.tasks) == ["classes"]
    assert problem.outputs == 3
    index = torch.tensor([[0, 1, 5], [2, 3, 4]])
    answers = problem.targets("train", torch.tensor([0, 0]), index)
    assert answers.tolist() == [[0, 1, 2], [2, 0, 1]]


def test_subsets_are_yes_no_tasks_with_families_of_two():
    problem = Classification(Blobs(), "subsets")
    assert problem.outputs == 2
    assert list(problem.tasks) == ["a", "b", "a+b", "c", "a+c", "b+c"]
    assert problem.answers.tolist()[2] == [1, 1, 0]
    families = [task.family for task in problem.tasks.values()]
    assert families[0] == families[5]  # a, and b or c: one question
    assert len(set(families)) == 3
    index = torch.arange(6).view(1, 2, 3)
    answers = problem.targets("test", torch.tensor([2, 3]), index)
    assert answers.tolist() == [[[1, 1, 0], [0, 0, 1]]]


def test_descriptions_name_the_classes_and_differ_between_tasks():
    problem = Classification(Digits(), [[1, 4, 7], [0]])
    first, second = problem.tasks.values()
    assert "Is the digit in the image 1, 4 or 7?" in first.descriptions
    assert "Detect 0." in second.descriptions
    assert len(set(first.descriptions)) == len(first.descriptions) >= 5
    assert not set(first.descriptions) & set(second.descriptions)
    assert first.metadata == {"classes": ["1", "4", "7"]}


def test_a_draw_of_tasks_depends_on_the_seed_alone():
    draws = [list(Classification(Digits(), "subsets", n_tasks=20, seed=s).tasks) for s in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    assert len(set(draws[0])) == 20


def test_the_written_out_gradient_is_that_of_the_loss():
    problem = Classification(Blobs())
    outputs = torch.randn(4, 3, 7, requires_grad=True)
    targets = torch.randint(3, (4, 7))
    total = sum(problem.loss(outputs[i].T, targets[i]) for i in range(4))
    (expected,) = torch.autograd.grad(total, outputs)
    written = torch.empty(4, 3, 7)
    assert problem.output_gradient(outputs.detach(), targets, written)
    torch.testing.assert_close(written, expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": "all"}, "'classes', 'subsets'"),
        ({"labels": [[]]}, "some but not all"),
        ({"labels": [[0, 1, 2]]}, "some but not all"),
        ({"labels": [[0, 0]]}, "each once"),
        ({"labels": [[3]]}, "outside 0…2"),
        ({"labels": [[0], [0]]}, "none twice"),
        ({"labels": "subsets", "n_tasks": 7}, "between 1 and 6"),
        ({"n_tasks": 2}, "between 1 and 1"),
    ],
)
def test_bad_label_sets_are_named(options, message):
    with pytest.raises(UsageError, match=message):
        Classification(Blobs(), **options)
