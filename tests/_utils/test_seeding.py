"""Seeds that do not depend on the process."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from hypergen._utils.seeding import generator, stable_seed

PARTS = ("generate", 3, 0.5, True, None, b"x", ["a", ("b", 1)])


def test_equal_parts_give_one_seed_in_range():
    seed = stable_seed(*PARTS)
    assert seed == stable_seed(*PARTS)
    assert 0 <= seed < 2**63


def test_different_parts_give_different_seeds():
    cases = [
        (),
        (1,),
        ("1",),
        (1.0,),
        (True,),
        (None,),
        ("a", "b"),
        ("ab",),
        (["a", "b"],),
        (b"a",),
    ]
    cases += [("a,b",), ("a", "b", "")]
    assert len({stable_seed(*case) for case in cases}) == len(cases)


@pytest.mark.parametrize("part", [object(), {"a"}, {"a": 1}, np.float32(1)])
def test_parts_without_a_stable_form_are_refused(part):
    with pytest.raises(TypeError, match="a seed cannot be made from"):
        stable_seed("a", [part])


@pytest.mark.parametrize("hash_seed", ["0", "123"])
def test_the_hash_seed_of_the_process_does_not_matter(hash_seed):
    code = f"from hypergen._utils.seeding import stable_seed; print(stable_seed(*{PARTS!r}))"
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) == stable_seed(*PARTS)


def test_generator_draws_the_same_numbers_and_leaves_the_global_ones_alone():
    before = torch.get_rng_state()
    first, again, other = (
        torch.randn(4, generator=generator(*parts)) for parts in [("a", 0), ("a", 0), ("a", 1)]
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)
