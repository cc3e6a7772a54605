from __future__ import annotations

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_zoo import LARGE, SMALL, tiny_block, tiny_blocks, tiny_header, write_tiny_zoo

from hypergen._utils.io import write_text
from hypergen.errors import RunError, UsageError, WeightsError
from hypergen.specs import TokenLayout
from hypergen.zoo.store import Zoo, ZooWriter
from hypergen.zoo.store.seal import open_lines, seal_lines
from hypergen.zoo.store.shards import Shard


@pytest.fixture
def zoo(zoo_folder):
    return Zoo(zoo_folder)


@pytest.fixture
def small(zoo):
    return zoo.select(architecture="small")


@pytest.fixture
def numbers():
    """All rows of the small architecture, in order."""
    return torch.cat([tiny_block("small", part).weights for part in range(3)])


def test_header_and_rows_come_back(zoo):
    assert zoo.header == tiny_header()
    assert len(zoo) == len(zoo.rows) == 3 * (4 + 6)
    row = zoo.rows[1]
    assert (row.run, row.step, row.task, row.seed) == ("small-0-0", 10, "odd", 0)
    assert row.metrics == {"test": {"accuracy": 0.6}}
    assert "30 checkpoints of 2 architectures" in repr(zoo)


def test_numbers_come_back_bit_by_bit(small, numbers):
    assert torch.equal(small.flat(), numbers)
    assert torch.equal(small.flat([7, 0, 3, 3]), numbers[[7, 0, 3, 3]])
    assert torch.equal(small.flat(-1), numbers[-1:])
    assert torch.equal(small.flat(slice(2, 11, 3)), numbers[2:11:3])
    assert torch.equal(small.flat(torch.arange(12) > 9), numbers[10:])
    assert small.flat([]).shape == (0, SMALL.numel)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 11), max_size=30))
def test_any_rows_in_any_order(tmp_path_factory, indices):
    folder = tmp_path_factory.getbasetemp() / "any_rows"
    if not folder.exists():
        write_tiny_zoo(folder)
    view = Zoo(folder).select(architecture="small")
    whole = torch.cat([tiny_block("small", part).weights for part in range(3)])
    assert torch.equal(view.flat(indices), whole[indices])


def test_a_slot_over_all_checkpoints(zoo):
    large = zoo.select(architecture="large")
    whole = LARGE.unpack(large.flat())
    for name in LARGE.names:
        assert torch.equal(large.slot(name), whole[name])
        assert torch.equal(large.slot(name, [5, 1]), whole[name][[5, 1]])


@pytest.mark.parametrize("by", ["flat", "slot", "channel"])
def test_a_window_of_tokens(zoo, by):
    large = zoo.select(architecture="large")
    layout = TokenLayout(LARGE, 3, by)
    whole = layout.encode(large.flat())
    assert torch.equal(large.tokens(layout), whole)
    assert torch.equal(large.tokens(layout, [4, 2], 1, 4), whole[[4, 2], 1:4])
    with pytest.raises(WeightsError, match="another spec"):
        large.tokens(TokenLayout(SMALL, 3))


def test_weights_say_where_they_come_from(small, numbers):
    weights = small.weights([1, 4])
    assert torch.equal(weights.flat(), numbers[[1, 4]])
    assert weights.provenance == {
        "zoo": "tiny",
        "runs": ["small-0-0", "small-1-0"],
        "steps": [10, 0],
    }


def test_rows_are_chosen_by_what_they_are(zoo):
    assert {row.task for row in zoo.select(task="even")} == {"even"}
    assert len(zoo.select(run=["small-0-0", "large-1-2"])) == 4
    assert {row.step for row in zoo.select(step="last")} == {10}
    assert len(zoo.select(step=[0])) == 15
    lr = zoo.select(where=lambda row: row.hyperparameters["lr"] > 0.25)
    assert set(lr.column("hyperparameters.lr")) == {0.1 * 3}
    with pytest.raises(UsageError, match=r"no task 'evn'. Did you mean 'even'"):
        zoo.select(task="evn")
    with pytest.raises(UsageError, match="no architecture 'huge'"):
        zoo.select(architecture="huge")
    with pytest.raises(UsageError, match=r"no field 'tsk'. Did you mean 'task'"):
        zoo.column("tsk")


def test_several_architectures_have_no_common_rows(zoo):
    with pytest.raises(UsageError, match=r"2 architectures \(large, small\): pick one"):
        zoo.flat()


def test_metrics_are_columns(zoo):
    assert np.allclose(zoo.metric("test", "accuracy")[:2], [0.5, 0.6])
    assert np.isnan(zoo.metric("train", "accuracy")).all()


def test_a_view_of_a_view(small, numbers):
    view = small[[3, 5, 8]][torch.tensor([2, 0])]
    assert torch.equal(view.flat(), numbers[[8, 3]])
    with pytest.raises(IndexError, match="out of range"):
        small[[12]]


def test_relabelled_rows_keep_their_numbers(small, numbers):
    rows = [replace(row, metrics={"test": {"loss": 1.0}}) for row in small.rows]
    again = small.relabel(rows)
    assert again.metric("test", "loss").tolist() == [1.0] * 12
    assert torch.equal(again.flat(), numbers)
    with pytest.raises(UsageError, match="one row for each"):
        small.relabel(rows[::-1])


def test_a_copy_for_a_worker_maps_the_files_again(small, numbers, monkeypatch):
    small.flat()
    copy = pickle.loads(pickle.dumps(small))  # noqa: S301 - as worker processes get it
    assert copy._shards._open == {}
    # What was hashed here need not be hashed there.
    monkeypatch.setattr(Shard, "verify", lambda self: pytest.fail("hashed again"))
    assert torch.equal(copy.flat(), numbers)


def test_what_is_returned_is_no_view_of_the_file(small, numbers):
    small.flat().zero_()
    small.slot(SMALL.names[0]).zero_()
    assert torch.equal(small.flat(), numbers)


# -- damage --------------------------------------------------------------------------------------


@pytest.mark.parametrize("verify", ["lazy", "open"])
def test_a_flipped_byte_is_refused(zoo_folder, verify):
    path = next((zoo_folder / "shards").glob("000001-0-*"))
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(RunError, match=r"000001-0-small-0.safetensors is damaged"):
        Zoo(zoo_folder, verify=verify).select(architecture="small").flat()
    # The other shards are still good, and the check can be left out.
    assert len(Zoo(zoo_folder).select(architecture="large").flat()) == 18
    assert len(Zoo(zoo_folder, verify="never").select(architecture="small").flat()) == 12


def test_a_cut_or_missing_shard_is_refused(zoo_folder):
    path = next((zoo_folder / "shards").glob("000001-0-*"))
    whole = path.read_bytes()
    for verify in ("lazy", "open", "never"):
        path.write_bytes(whole[:-4])
        with pytest.raises(RunError, match="bytes long, the manifest says"):
            Zoo(zoo_folder, verify=verify).select(architecture="small").flat()
        path.unlink()
        with pytest.raises(RunError, match="is missing: the zoo is incomplete"):
            Zoo(zoo_folder, verify=verify).select(architecture="small").flat()


def test_a_foreign_file_in_place_of_a_shard(zoo_folder):
    path = next((zoo_folder / "shards").glob("000001-0-*"))
    path.write_bytes(b"\xff" * path.stat().st_size)
    with pytest.raises(RunError, match="is not a shard of a zoo"):
        Zoo(zoo_folder, verify="never").select(architecture="small").flat()


def test_no_zoo_at_all(tmp_path):
    with pytest.raises(RunError, match=r"is not a zoo: it has no zoo.json"):
        Zoo(tmp_path)
    with pytest.raises(UsageError, match="verify is"):
        Zoo(tmp_path, verify="always")


def test_a_zoo_of_a_later_format_is_refused(zoo_folder):
    from hypergen.zoo.store.seal import open_json, seal_json

    path = zoo_folder / "zoo.json"
    write_text(path, seal_json({**open_json(path.read_bytes()), "format_version": 99}))
    with pytest.raises(RunError, match=r"zoo.json: format 'hypergen-zoo' version 99; this"):
        Zoo(zoo_folder)


def _rewrite(folder, change):
    """Rewrites part 0 with good hashes, as someone who means harm could."""
    path = folder / "manifest" / "000000.jsonl"
    head, rows = open_lines(path.read_bytes())
    change(head, rows)
    write_text(path, seal_lines(head, rows))


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/passwd", "shards/../../x"])
def test_a_path_that_leaves_the_folder_is_refused(zoo_folder, name):
    def change(head, rows):
        head["shards"][name] = head["shards"].pop(rows[0]["shard"])
        for row in rows[:4]:
            row["shard"] = name

    _rewrite(zoo_folder, change)
    with pytest.raises(RunError, match=r"000000.jsonl: .*is not inside"):
        Zoo(zoo_folder)


def test_a_link_that_leaves_the_folder_is_refused(zoo_folder, tmp_path):
    path = next((zoo_folder / "shards").glob("000000-0-*"))
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunError, match="is not inside"):
        Zoo(zoo_folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h, r: r[0].pop("run"), "malformed"),
        (lambda h, r: r[0].update(extra=1), "malformed"),
        (lambda h, r: r[0].update(step="ten"), "'step' is no int"),
        (lambda h, r: r[0].update(shard="shards/none"), "which it does not list"),
        (lambda h, r: r[0].update(architecture="none"), "'none', which the header does not know"),
        (lambda h, r: h.update(part=5), "the list of another part"),
        (lambda h, r: h.update(shards=[]), "malformed"),
        (lambda h, r: h["shards"].update({"x": {"bytes": 1}}), "malformed"),
    ],
)
def test_a_malformed_manifest_is_refused(zoo_folder, change, message):
    _rewrite(zoo_folder, change)
    with pytest.raises(RunError, match=message):
        Zoo(zoo_folder)


def test_a_row_beyond_its_shard_is_refused(zoo_folder):
    _rewrite(zoo_folder, lambda head, rows: rows[0].update(index=99))
    with pytest.raises(RunError, match="row 99 is not in"):
        Zoo(zoo_folder).select(architecture="small").flat()


def test_an_unfinished_zoo_can_be_read(tmp_path):
    with ZooWriter(tmp_path / "zoo", tiny_header()) as writer:
        writer.write(0, tiny_blocks(0))
    zoo = Zoo(tmp_path / "zoo")
    assert not zoo.complete
    assert len(zoo) == 10


def test_the_manifest_is_plain_json(zoo_folder):
    lines = (zoo_folder / "manifest" / "000000.jsonl").read_text().splitlines()
    assert [json.loads(line)["run"] for line in lines[1:3]] == ["small-0-0", "small-0-0"]
