from __future__ import annotations

import errno
import json
from dataclasses import replace

import pytest
import torch
from tiny_zoo import SMALL, tiny_block, tiny_blocks, tiny_header, write_tiny_zoo, zoo_files

from hypergen.errors import RunError, UsageError, WeightsError
from hypergen.zoo.store import Block, Header, Row, Task, Zoo, ZooWriter, verify_zoo


def test_the_order_of_parts_does_not_change_a_byte(tmp_path):
    write_tiny_zoo(tmp_path / "a")
    with ZooWriter(tmp_path / "b", tiny_header()) as writer:
        for part in (2, 0, 1):
            writer.write(part, tiny_blocks(part))
        assert writer.done == {0, 1, 2}
    assert zoo_files(tmp_path / "a") == zoo_files(tmp_path / "b")


def test_an_interrupted_zoo_goes_on(tmp_path):
    write_tiny_zoo(tmp_path / "whole")
    folder = tmp_path / "cut"
    with ZooWriter(folder, tiny_header()) as writer:
        writer.write(1, tiny_blocks(1))
    # What a killed writer leaves: a temporary file, and a shard that no part lists yet.
    (folder / "shards" / ".000000-0-small-0.safetensors.12ab.tmp").write_bytes(b"half")
    (folder / "shards" / "000002-0-small-0.safetensors").write_bytes(b"old")
    assert not Zoo(folder).complete
    with ZooWriter(folder, tiny_header()) as writer:
        assert writer.done == {1}
        for part in (0, 2):
            writer.write(part, tiny_blocks(part))
    assert zoo_files(folder) == zoo_files(tmp_path / "whole")
    assert Zoo(folder).complete


def test_a_writer_killed_before_the_header_does_not_block_the_folder(tmp_path):
    (tmp_path / ".lock").touch()
    (tmp_path / ".zoo.json.12ab.tmp").write_text("{")
    with ZooWriter(tmp_path, tiny_header()):
        pass
    assert not (tmp_path / ".zoo.json.12ab.tmp").exists()


def test_a_second_writer_stops(tmp_path):
    with (
        ZooWriter(tmp_path / "zoo", tiny_header()),
        pytest.raises(UsageError, match=r"another job is writing to .*zoo"),
    ):
        ZooWriter(tmp_path / "zoo", tiny_header())
    ZooWriter(tmp_path / "zoo", tiny_header()).close()


def test_another_recipe_is_refused_with_its_first_difference(zoo_folder):
    other = replace(tiny_header(), provenance={"seed": 1})
    with pytest.raises(UsageError, match=r"another recipe \(provenance.seed is 0 there and 1 here"):
        ZooWriter(zoo_folder, other)
    ZooWriter(zoo_folder, tiny_header()).close()  # the failed one has let go of the lock


def test_a_folder_of_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(UsageError, match="holds files but no zoo"):
        ZooWriter(tmp_path, tiny_header())
    with pytest.raises(UsageError, match="is not a folder"):
        ZooWriter(tmp_path / "thesis.tex", tiny_header())


def test_an_open_zoo_takes_new_parts_tasks_and_architectures(tmp_path):
    first = replace(
        tiny_header(None), architectures={"small": tiny_header().architectures["small"]}
    )
    with ZooWriter(tmp_path / "zoo", first) as writer:
        assert writer.append([tiny_block("small", 0)]) == 0
    second = replace(tiny_header(None), tasks={"prime": Task(("Is it prime?",))})
    with ZooWriter(tmp_path / "zoo", second) as writer:
        assert writer.append([tiny_block("large", 1)]) == 1
    zoo = Zoo(tmp_path / "zoo")
    assert set(zoo.tasks) == {"even", "odd", "prime"}
    assert set(zoo.architectures) == {"small", "large"}
    assert zoo.complete
    assert verify_zoo(tmp_path / "zoo") == []
    clash = replace(tiny_header(None), tasks={"even": Task(("Other words.",))})
    with pytest.raises(UsageError, match="other tasks named 'even'"):
        ZooWriter(tmp_path / "zoo", clash)


def test_nan_and_infinity_are_kept_apart(tmp_path):
    block = tiny_block("small", 0)
    block.weights[1, 0] = float("nan")
    block.weights[3, -1] = float("inf")
    block.rows[1].metrics["test"]["accuracy"] = float("nan")
    with ZooWriter(tmp_path / "zoo", tiny_header(1)) as writer:
        writer.write(0, [block])
    zoo = Zoo(tmp_path / "zoo")
    assert len(zoo) == 2
    assert torch.equal(zoo.flat(), block.weights[[0, 2]])
    assert [row.quarantined for row in zoo.quarantined] == [
        f"slot {SMALL.names[0]!r} holds NaN or infinity",
        f"slot {SMALL.names[-1]!r} holds NaN or infinity",
    ]
    assert zoo.quarantined[0].metrics == {"test": {"accuracy": None}}
    assert verify_zoo(tmp_path / "zoo") == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_says_so_and_loses_nothing(tmp_path, monkeypatch, code):
    from hypergen.zoo.store import writer as module

    folder = tmp_path / "zoo"
    with ZooWriter(folder, tiny_header()) as writer:
        writer.write(0, tiny_blocks(0))

        def full(*args: object) -> None:
            raise OSError(code, "full")

        with monkeypatch.context() as patch:
            patch.setattr(module, "write_shard", full)
            with pytest.raises(RunError, match=r"disk of .* is full: part 1 needs .* 1 parts that"):
                writer.write(1, tiny_blocks(1))
        assert writer.done == {0}
        writer.write(1, tiny_blocks(1))
        writer.write(2, tiny_blocks(2))
    assert verify_zoo(folder) == []


def test_another_error_of_the_disk_is_not_called_full(tmp_path, monkeypatch):
    from hypergen.zoo.store import writer as module

    def broken(*args: object) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(module, "write_shard", broken)
    with (
        ZooWriter(tmp_path / "zoo", tiny_header()) as writer,
        pytest.raises(OSError, match="broken"),
    ):
        writer.write(0, tiny_blocks(0))


def test_large_blocks_are_cut_into_shards(tmp_path, monkeypatch):
    from hypergen.zoo.store import writer as module

    monkeypatch.setattr(module, "SHARD_BYTES", 3 * SMALL.numel * 4)
    block = tiny_block("small", 0, runs=4)
    with ZooWriter(tmp_path / "zoo", tiny_header(1)) as writer:
        writer.write(0, [block])
    assert len(list((tmp_path / "zoo" / "shards").iterdir())) == 3
    assert torch.equal(Zoo(tmp_path / "zoo").flat(), block.weights)


def test_blocks_must_fit(tmp_path):
    good = tiny_block("small", 0)
    with ZooWriter(tmp_path / "zoo", tiny_header()) as writer:
        with pytest.raises(UsageError, match=r"no architecture 'smal'. Did you mean 'small'"):
            writer.write(0, [replace(good, architecture="smal")])
        with pytest.raises(WeightsError, match="its rows and its spec ask for"):
            writer.write(0, [Block("small", good.weights[:, 1:], good.rows)])
        with pytest.raises(UsageError, match="'evn', which is not in the zoo's table"):
            writer.write(0, [replace(good, rows=[replace(r, task="evn") for r in good.rows])])
        with pytest.raises(UsageError, match="run 'small-0-0', step 0 is given twice"):
            writer.write(0, [good, good])
        with pytest.raises(UsageError, match="part 3 of a zoo of 3 parts"):
            writer.write(3, [good])
        assert writer.done == set()


def test_an_architecture_key_must_fit_into_a_file_name():
    with pytest.raises(UsageError, match=r"'\.\./x' cannot name files"):
        Header("bad", architectures={"../x": tiny_header().architectures["small"]})


def test_half_precision_is_stored_as_it_is(tmp_path):
    from torch import nn

    from hypergen.specs import FullSpec
    from hypergen.zoo.store import Architecture

    spec = FullSpec(nn.Linear(3, 2).to(torch.bfloat16))
    header = Header("half", architectures={"a": Architecture(spec)}, parts=1)
    weights = torch.randn(2, spec.numel, dtype=torch.bfloat16)
    with ZooWriter(tmp_path / "zoo", header) as writer:
        writer.write(0, [Block("a", weights, [Row("r", 0, "a"), Row("r", 1, "a")])])
    assert torch.equal(Zoo(tmp_path / "zoo").flat(), weights)
    part = (tmp_path / "zoo" / "manifest" / "000000.jsonl").read_text().splitlines()
    assert json.loads(part[1])["run"] == "r"
