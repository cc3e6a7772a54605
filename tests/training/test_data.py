"""Batches: functions of seed and number, whatever the processes, encoded once."""

from __future__ import annotations

from itertools import islice
from types import SimpleNamespace

import pytest
import torch
import toy

from hypergen.conditions import HashingEncoder
from hypergen.errors import UsageError
from hypergen.training import TaskDataModule
from hypergen.training.bank import ListLoader, StepLoader, WordingBank


def data(**settings):
    made = toy.ToyData(**settings)
    made.setup("fit")
    return made


def same(a, b) -> bool:
    """Whether two batches hold the same numbers."""
    if a.keys() != b.keys():
        return False
    pairs = [(a[k], b[k]) for k in a if k != "condition"]
    pairs += [
        (getattr(a["condition"], k), getattr(b["condition"], k))
        for k in ("tokens", "mask", "pooled")
        if "condition" in a
    ]
    return all(torch.equal(x, y) for x, y in pairs)


# -- the table of descriptions


def test_a_row_of_the_bank_is_what_the_encoder_says():
    suite, encoder = toy.ToySuite(), HashingEncoder(32)
    bank = WordingBank(encoder, suite.descriptions["train"], [3, 0])
    generator = torch.Generator().manual_seed(0)
    rows = bank.pick(torch.tensor([0, 1, 1]), generator)
    texts = [bank.raw[row] for row in rows.tolist()]
    assert texts[0] in suite.descriptions["train"][3]
    assert {texts[1], texts[2]} <= set(suite.descriptions["train"][0])
    direct, banked = encoder(texts), bank.batch(rows)["condition"]
    assert torch.equal(direct.tokens, banked.tokens)  # cut to the longest of these, not of all
    assert torch.equal(direct.mask, banked.mask)
    assert torch.equal(direct.pooled, banked.pooled)


def test_every_wording_is_drawn_about_as_often():
    bank = WordingBank(HashingEncoder(8), [["a", "b", "c"], ["d"]], [0, 1])
    generator = torch.Generator().manual_seed(0)
    rows = bank.pick(torch.zeros(3000, dtype=torch.long), generator)
    counts = torch.bincount(rows, minlength=4)
    assert counts[3] == 0
    assert all(900 < count < 1100 for count in counts[:3].tolist())


def test_equal_descriptions_are_encoded_once_and_tasks_without_one_left_out():
    bank = WordingBank(HashingEncoder(8), [["a", "b"], ["b"], []], [0, 1, 2])
    assert bank.raw == ["a", "b"]
    assert bank.tasks.tolist() == [0, 1]
    assert len(bank.condition) == 2


def test_descriptions_with_named_parts_are_turned_into_columns():
    class Trained(HashingEncoder):
        def __init__(self):
            super().__init__(8)
            self.weight = torch.nn.Parameter(torch.zeros(1))

    bank = WordingBank(Trained(), [[{"text": "a", "task": 0}], [{"text": "b", "task": 1}]], [0, 1])
    assert bank.batch(torch.tensor([1, 0])) == {"raw": {"text": ["b", "a"], "task": [1, 0]}}


# -- training batches


def test_a_batch_depends_on_seed_and_number_alone():
    one, two = data().train_dataloader(), data().train_dataloader()
    third = one.draw(2)
    for i in range(5):
        two.draw(i)
    torch.rand(7)
    assert same(third, two.draw(2))
    assert not same(third, one.draw(3))
    assert not same(third, data(seed=1).train_dataloader().draw(2))


def test_a_batch_has_distinct_tasks_with_their_own_words_and_samples():
    module = data()
    batch = module.train_dataloader().draw(0)
    tasks = batch["tasks"].tolist()
    assert len(set(tasks)) == 8
    assert set(tasks) <= set(module.suite.task_splits["train"])
    assert batch["inputs"].shape == (8 * 4, toy.WIDTH)
    assert "gather" not in batch
    axes = module.suite.axes[batch["tasks"]].repeat_interleave(4, 0)
    assert torch.equal(batch["labels"], ((batch["inputs"] * axes).sum(1) > 0).long())
    for row, task in enumerate(tasks):
        choices = module.encoder(module.suite.descriptions["train"][task]).pooled
        assert (choices == batch["condition"].pooled[row]).all(1).any()


@pytest.mark.parametrize("temperature", [None, 1.0])
@pytest.mark.parametrize("world", [2, 4])
def test_the_shares_of_all_processes_are_the_global_batch(monkeypatch, world, temperature):
    whole = data(temperature=temperature).train_dataloader().draw(3)
    parts = []
    for rank in range(world):
        module = data(temperature=temperature)
        monkeypatch.setattr(module, "trainer", SimpleNamespace(global_rank=rank, world_size=world))
        parts.append(module.train_dataloader().draw(3))
    for key in ("inputs", "labels", "tasks"):
        assert torch.equal(torch.cat([part[key] for part in parts]), whole[key])
    assert torch.equal(torch.cat([pooled(part) for part in parts]), pooled(whole))


def pooled(batch):
    return batch["condition"].pooled[batch.get("gather", slice(None))]


def test_tasks_cannot_be_split_unevenly(monkeypatch):
    module = data(tasks_per_batch=9)
    monkeypatch.setattr(module, "trainer", SimpleNamespace(global_rank=0, world_size=2))
    with pytest.raises(UsageError, match="tasks_per_batch=9 cannot be split over 2"):
        module.train_dataloader()


def test_shared_conditions_are_generated_once_and_gathered():
    module = data(tasks_per_batch=32, temperature=0.5)
    batch = module.train_dataloader().draw(0)
    distinct = len(batch["condition"])
    assert distinct < 32
    assert batch["gather"].unique().tolist() == list(range(distinct))
    built = toy.module(module, dropout=0.0)
    rows = []
    built.generator.register_forward_hook(lambda m, a, out: rows.append(len(out)))
    for parameter in built.generator.parameters():
        torch.nn.init.normal_(parameter)

    def total(weights, batch):
        assert len(weights) == 32
        return (weights.flat() * batch["tasks"][:, None]).sum()

    loss = built.generator.loss(batch, total)
    assert rows == [distinct]
    full = {**batch, "condition": batch["condition"][batch["gather"]]}
    del full["gather"]
    torch.testing.assert_close(loss, built.generator.loss(full, total))


def test_temperature_draws_tasks_by_size():
    module = data(tasks_per_batch=2000, samples_per_task=1, temperature=2.0)
    counts = torch.bincount(module.train_dataloader().draw(0)["tasks"], minlength=20).double()
    expected = torch.arange(1.0, 21.0, dtype=torch.float64).sqrt()
    assert torch.corrcoef(torch.stack([counts, expected]))[0, 1] > 0.9


def test_temperature_needs_sizes():
    module = data(temperature=1.0)
    del module.suite.sizes
    with pytest.raises(UsageError, match="ToySuite has no `sizes`"):
        module.train_dataloader()


def test_reconstruction_gets_stored_weights_and_draws_no_samples():
    module = data()
    module.needs = frozenset({"weights"})
    batch = module.train_dataloader().draw(0)
    assert "inputs" not in batch
    weights, tasks = module.zoo
    rows = [tasks.tolist().index(task) for task in batch["tasks"].tolist()]
    assert torch.equal(batch["weights"], weights.flat()[rows])


def test_tasks_without_stored_weights_are_not_reconstructed():
    whole = toy.ToyData()
    some = TaskDataModule(
        whole.suite, whole.encoder, whole.target, whole.zoo[0][:3], [5, 17, 40], tasks_per_batch=16
    )
    some.needs = frozenset({"weights"})
    assert set(some.train_dataloader().draw(0)["tasks"].tolist()) == {5, 17}


def test_building_leaves_no_trace_in_the_random_numbers():
    torch.manual_seed(4)
    expected = torch.rand(1)
    torch.manual_seed(4)
    module = data()
    assert len(module.suite.names) == 28
    assert module.spec is module.target.spec
    assert torch.equal(torch.rand(1), expected)
    assert module.suite is module.suite


def test_an_encoder_that_is_trained_gets_raw_descriptions():
    batch = data(learnt=True).train_dataloader().draw(0)
    assert batch["raw"] == batch["tasks"].tolist()
    assert "condition" not in batch


# -- evaluation batches


@pytest.mark.parametrize("world", [1, 3, 64])
def test_validation_covers_every_task_of_the_split(monkeypatch, world):
    seen = []
    for rank in range(world):
        module = data()
        module.eval_batch = 3
        monkeypatch.setattr(module, "trainer", SimpleNamespace(global_rank=rank, world_size=world))
        for batch in module.val_dataloader():
            assert len(batch["tasks"]) <= 3
            assert (batch["split"], batch["name"]) == ("val", "")
            seen += batch["tasks"].tolist()
    expected = [20, 21, 22, 23]
    assert sorted(seen) == (sorted(expected * 64) if world == 64 else expected)


def test_further_splits_are_named():
    module = data()
    module.test_splits = {"heldout_tasks": "train", "train": "val"}
    names = [batch["name"] for batch in module.test_dataloader()]
    assert names == ["", "train"]


def test_a_subclass_has_its_own_splits():
    class Other(toy.ToyData):
        VAL_SPLITS = {"heldout_tasks": "val", "val": "train"}  # noqa: RUF012

    assert Other().val_splits == {"heldout_tasks": "val", "val": "train"}
    assert toy.ToyData().val_splits == {"val": "val"}


def test_evaluation_batches_are_the_same_each_time():
    module = data()
    first, second = next(iter(module.val_dataloader())), next(iter(module.val_dataloader()))
    assert torch.equal(first["inputs"], second["inputs"])


# -- loaders


def test_the_loader_goes_on_in_the_middle_of_an_epoch():
    loader = StepLoader(lambda i: {"i": i}, 4)
    assert [b["i"] for b in loader] == [0, 1, 2, 3]
    assert [b["i"] for b in islice(loader, 2)] == [4, 5]
    state = loader.state_dict()
    other = StepLoader(lambda i: {"i": i}, 4)
    other.load_state_dict(state)
    assert [b["i"] for b in other] == [6, 7]
    assert [b["i"] for b in other] == [8, 9, 10, 11]


def test_a_list_of_batches_starts_anew():
    loader = ListLoader([lambda: {"a": 1}, lambda: {"a": 2}])
    assert len(loader) == 2
    assert [list(loader), list(loader)] == [[{"a": 1}, {"a": 2}]] * 2


# -- mistakes


@pytest.mark.parametrize("name", ["tasks_per_batch", "samples_per_task", "epoch", "temperature"])
def test_numbers_must_be_positive(name):
    with pytest.raises(UsageError, match=f"{name} must be positive, not 0"):
        toy.ToyData(**{name: 0})


def test_parts_must_be_given_or_built():
    with pytest.raises(UsageError, match="needs suite, encoder and target"):
        TaskDataModule().spec  # noqa: B018


def test_reconstruction_needs_a_zoo():
    whole = toy.ToyData()
    with pytest.raises(UsageError, match="needs trained weights"):
        TaskDataModule(whole.suite, whole.encoder, whole.target).zoo  # noqa: B018


@pytest.mark.parametrize(
    ("tasks", "wordings", "message"),
    [
        ("trian", "train", "no split 'trian' of tasks. Did you mean 'train'"),
        ("train", "vall", "no split 'vall' of wordings. Did you mean 'val'"),
    ],
)
def test_an_unknown_split_is_named(tasks, wordings, message):
    with pytest.raises(UsageError, match=message):
        data().bank(tasks, wordings)


def test_a_split_without_wordings_is_refused():
    module = data()
    module.suite.descriptions["none"] = [[] for _ in module.suite.names]
    with pytest.raises(UsageError, match="no task of the split 'train' has a wording in 'none'"):
        module.bank("train", "none")
