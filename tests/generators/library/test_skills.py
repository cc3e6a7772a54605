"""Skills mixed by the description."""

from __future__ import annotations

from types import SimpleNamespace

import matrix
import pytest
import torch

from hypergen.conditions import Condition, HashingEncoder
from hypergen.errors import SpecError, WeightsError
from hypergen.generators import LatentSkills, MultiTask

SPEC = matrix.spec("lora")


def drawn(**options) -> LatentSkills:
    torch.manual_seed(0)
    net = LatentSkills(SPEC, HashingEncoder(16), **{"skills": 3, **options}).eval()
    with torch.no_grad():
        net.skills.normal_()
    return net


def groups(count: int = 5) -> torch.Tensor:
    """Three bundles of directions, `[3 · count, 16]`."""
    torch.manual_seed(1)
    directions = torch.eye(16)[:3].repeat_interleave(count, 0)
    return 2 + directions + 0.05 * torch.randn(3 * count, 16)


def pooled(rows: torch.Tensor) -> Condition:
    return Condition(rows[:, None], torch.ones(len(rows), 1, dtype=torch.bool), rows)


def test_the_output_is_a_mean_of_the_skills_with_positive_shares_that_sum_to_one():
    net = drawn()
    condition = HashingEncoder(16)(["yes", "no, say no", "maybe"])
    shares = net.shares(condition)
    assert torch.allclose(shares.sum(1), torch.ones(3))
    assert bool((shares > 0).all())
    expected = (shares[..., None] * net.skills).sum(1)
    torch.testing.assert_close(net(condition).flat(), expected)
    torch.testing.assert_close(net.shared_weights(2).flat()[1], net.skills.mean(0))


def test_clusters_of_descriptions_get_skills_of_their_own():
    net = drawn(temperature=0.05)
    rows = groups()
    net.cluster(rows)
    best = net.shares(pooled(rows)).argmax(1).view(3, -1)
    assert bool((best == best[:, :1]).all())
    assert len(best[:, 0].unique()) == 3
    again = drawn(temperature=0.05)
    again.cluster(rows[torch.randperm(len(rows))])
    torch.testing.assert_close(again.centres.sort(0).values, net.centres.sort(0).values)


def test_centres_are_taken_from_the_data_once():
    bank = SimpleNamespace(condition=pooled(groups()))
    data = SimpleNamespace(bank=lambda *_: bank, train_tasks="train", train_wordings="train")
    net = drawn()
    before = net.centres.clone()
    net.prepare(data)
    assert not torch.equal(net.centres, before)
    with torch.no_grad():
        net.centres += 1
    moved = net.centres.clone()
    net.prepare(data)
    assert torch.equal(net.centres, moved)
    few = drawn()
    few.cluster(groups(1)[:2])
    assert torch.equal(few.centres, before)  # fewer descriptions than skills
    encoded_later = SimpleNamespace(
        bank=lambda *_: SimpleNamespace(condition=None), train_tasks="", train_wordings=""
    )
    few.prepare(encoded_later)
    assert torch.equal(few.centres, before)


def test_all_skills_start_from_a_multi_task_run(tmp_path):
    adapter = MultiTask(SPEC, HashingEncoder(16))
    with torch.no_grad():
        adapter.weights.normal_()
    adapter.save_pretrained(tmp_path / "run" / "generator")
    net = LatentSkills(SPEC, HashingEncoder(16), skills=2, file=str(tmp_path / "run"))
    for text in ("yes", "no"):
        torch.testing.assert_close(net.generate(text).flat()[0], adapter.weights.detach())
    other = MultiTask(matrix.spec("lora_alpha"), HashingEncoder(16))
    other.save_pretrained(tmp_path / "other" / "generator")
    with pytest.raises(WeightsError, match="does not hold one set of weights"):
        LatentSkills(SPEC, HashingEncoder(16), file=str(tmp_path / "other"))


@pytest.mark.parametrize("options", [{"skills": 0}, {"temperature": 0.0}])
def test_options_out_of_range_are_told(options):
    with pytest.raises(SpecError, match="must be at least 1"):
        LatentSkills(SPEC, HashingEncoder(16), **options)
