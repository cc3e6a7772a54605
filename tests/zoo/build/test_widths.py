"""Which runs train together."""

from __future__ import annotations

import pytest

from hypergen._utils.errors import UsageError
from hypergen.zoo.build.widths import stacks, width_of, with_width
from hypergen.zoo.networks import CNN, MLP, ViT


def mlps(*widths):
    return [MLP(8, width, 2) for width in widths]


def test_similar_widths_share_a_stack_of_the_widest():
    networks = mlps((16, 16), (12, 16), (16, 16), (12, 16), (16, 16))
    found = stacks(networks, 3)
    assert [stack.runs for stack in found] == [(0, 1, 2), (3, 4)]
    assert {stack.network for stack in found} == {networks[0]}


@pytest.mark.parametrize(
    "networks",
    [
        mlps((16, 16), (4, 4)),  # more padding than network
        mlps((16, 16), (16,)),  # depths
        mlps((16, 12), (12, 16)),  # neither fits into the other
        [MLP(8, w, 2, norm="layer") for w in ((16, 16), (15, 16))],  # units see each other
    ],
)
def test_others_train_apart(networks):
    assert sorted(stack.runs for stack in stacks(networks, 8)) == [(0,), (1,)]


def test_every_run_is_in_one_stack_and_the_widest_holds_it():
    networks = mlps(*[(4 + i % 9, 4 + i % 5) for i in range(40)])
    found = stacks(networks, 6)
    assert sorted(run for stack in found for run in stack.runs) == list(range(40))
    for stack in found:
        assert len(stack.runs) <= 6
        for run in stack.runs:
            assert all(
                a <= b for a, b in zip(networks[run].hidden, stack.network.hidden, strict=True)
            )


def test_the_option_of_the_widths():
    assert width_of(MLP(8, (3, 4), 2)) == (3, 4)
    assert with_width(CNN((1, 8, 8), (4, 4, 4), 2), [2, 3, 4]).channels == (2, 3, 4)
    assert width_of(ViT()) == ()
    with pytest.raises(UsageError, match="ViT has no option hidden or channels"):
        with_width(ViT(), (3,))
