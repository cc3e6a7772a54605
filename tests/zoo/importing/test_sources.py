"""What is found in folders, and what must not be opened."""

from __future__ import annotations

import json
import os
import shutil

import pytest
import torch
from import_sources import reasons, save_adapter, state

from hypergen.errors import RunError, UsageError
from hypergen.zoo.importing import import_zoo
from hypergen.zoo.importing.report import Entry
from hypergen.zoo.importing.sources import Found, find
from hypergen.zoo.store import Zoo


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    torch.save(state(), folder / "good.pt")
    return folder


def test_every_file_is_accounted_for(tmp_path, source):
    names = {
        "README.md": "ignored",
        ".hidden": "ignored",
        "LICENSE": "ignored",
        "optimizer.pt": "ignored",
        "sub/rng_state_0.pth": "ignored",
        "training_args.bin": "ignored",
        "a/events.out.tfevents.1": "ignored",
        "b/config.json": "ignored",
        "pytorch_model.bin": "skipped",
        "x.npz": "skipped",
        "y.GGUF": "skipped",
        "model-00001-of-00002.safetensors": "skipped",
        "adapter_model.safetensors": "skipped",
        "c/adapter_config.json": "skipped",
    }
    for name in names:
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_text("{}")
    found = list(find([source], "auto", tmp_path / "zoo"))
    entries = {item.path: item.status for item in found if isinstance(item, Entry)}
    assert entries == names
    assert [item.path for item in found if isinstance(item, Found)] == ["good.pt"]
    assert all(item.reason for item in found if isinstance(item, Entry))
    said = {item.path: item.reason for item in found if isinstance(item, Entry)}
    assert "convert it with safetensors" in said["pytorch_model.bin"]
    assert said["x.npz"].startswith(".npz files are foreign")
    assert said["adapter_model.safetensors"] == "adapter_config.json is missing beside it"
    assert said["c/adapter_config.json"] == "adapter_model.safetensors is missing beside it"


def test_a_pickled_adapter_is_skipped_with_the_way_to_convert_it(tmp_path, source):
    (source / "a").mkdir()
    (source / "a/adapter_config.json").write_text('{"peft_type": "LORA"}')
    (source / "a/adapter_model.bin").write_bytes(b"")
    said = reasons(import_zoo(source, tmp_path / "zoo"))
    assert (
        "convert it with PeftModel.from_pretrained(…).save_pretrained"
        in (said["a/adapter_model.bin"])
    )


def test_links_are_followed_inside_the_folder_only(tmp_path, source):
    outside = tmp_path / "outside"
    outside.mkdir()
    torch.save(state(1), outside / "secret.pt")
    (source / "in").mkdir()
    torch.save(state(2), source / "in/real.pt")
    (source / "link.pt").symlink_to(source / "in/real.pt")
    (source / "out.pt").symlink_to(outside / "secret.pt")
    (source / "folder").symlink_to(outside)
    (source / "again").symlink_to(source / "in")
    (source / "loop").symlink_to(source)
    (source / "broken.pt").symlink_to(source / "nothing.pt")
    (source / "circle.pt").symlink_to(source / "circle.pt")
    report = import_zoo(source, tmp_path / "zoo")
    assert {e.path for e in report.of("taken")} == {"good.pt", "in/real.pt"}
    said = reasons(report)
    assert said.pop("link.pt") == "a duplicate: it has the numbers of in/real.pt"
    leaves = "a link that leaves the folder"
    assert {name: reason.startswith(leaves) for name, reason in said.items()} == {
        "out.pt": True,
        "folder": True,
        "broken.pt": False,
        "circle.pt": False,
    }
    assert {e.path for e in report.of("ignored")} == {"again", "loop"}


def test_an_adapters_config_may_not_be_a_link_out(tmp_path, source):
    from peft import IA3Config

    config = IA3Config(target_modules=["fc1"], feedforward_modules=[])
    save_adapter(source / "a", "mlp", config)
    shutil.move(source / "a/adapter_config.json", tmp_path / "config.json")
    (source / "a/adapter_config.json").symlink_to(tmp_path / "config.json")
    said = reasons(import_zoo(source, tmp_path / "zoo"))
    assert said["a/adapter_model.safetensors"].startswith("adapter_config.json: a link that leaves")


def test_a_pipe_is_not_opened(tmp_path, source):
    os.mkfifo(source / "pipe.pt")
    said = reasons(import_zoo(source, tmp_path / "zoo"))
    assert said == {"pipe.pt": "neither a file nor a folder"}


def test_names_that_are_no_text_are_not_taken(tmp_path, source):
    torch.save(state(3), source / "new\nline.pt")
    with open(os.fsencode(source) + b"/\xff.pt", "wb") as file:
        torch.save(state(4), file)
    report = import_zoo(source, tmp_path / "zoo")
    assert report.counts["taken"] == 1
    assert len(reasons(report)) == 2
    json.dumps(report.to_dict(), ensure_ascii=False).encode()


def test_one_kind_alone(tmp_path, source):
    from peft import IA3Config

    config = IA3Config(target_modules=["fc1"], feedforward_modules=[])
    save_adapter(source / "a", "mlp", config)
    report = import_zoo(source, tmp_path / "peft", kind="peft")
    assert [e.path for e in report.of("taken")] == ["a"]
    assert Entry("good.pt", "ignored", "not a PEFT adapter (--kind peft)") in report.entries
    report = import_zoo(source, tmp_path / "plain", kind="state_dict")
    assert [e.path for e in report.of("taken")] == ["a/adapter_model.safetensors", "good.pt"]


def test_zoos_among_the_sources_are_left_alone(tmp_path, source):
    import_zoo(source, source / "zoo")
    report = import_zoo(source, source / "zoo")
    assert report.counts["known"] == 1
    assert [e.path for e in report.of("ignored")] == ["zoo"]
    report = import_zoo(source, tmp_path / "other")
    assert report.of("ignored")[0].reason.startswith("a zoo already")


def test_several_sources_keep_their_runs_apart(tmp_path):
    for i, name in enumerate(("a/runs", "b/runs")):
        (tmp_path / name).mkdir(parents=True)
        torch.save(state(i), tmp_path / name / "step-1.pt")
    torch.save(state(2), tmp_path / "single.pt")
    given = [tmp_path / "a/runs", tmp_path / "b/runs", tmp_path / "single.pt"]
    import_zoo(given, tmp_path / "zoo")
    rows = Zoo(tmp_path / "zoo").rows
    assert [(row.run, row.step) for row in rows] == [("runs", 1), ("b/runs", 1), ("single", 0)]
    assert [row.metadata["source"] for row in rows] == [
        "runs/step-1.pt",
        "b/runs/step-1.pt",
        "single.pt",
    ]


def test_a_source_that_is_missing_or_empty(tmp_path, source):
    with pytest.raises(UsageError, match=r"nowhere does not exist; names on the hub go into a"):
        import_zoo(tmp_path / "nowhere", tmp_path / "zoo")
    with pytest.raises(UsageError, match="name at least one folder"):
        import_zoo([], tmp_path / "zoo")
    (source / "good.pt").unlink()
    (source / "model.bin").write_bytes(b"")
    with pytest.raises(UsageError, match=r"holds no PEFT adapter.* \(1 files skipped: model.bin"):
        import_zoo(source, tmp_path / "zoo")
    assert not (tmp_path / "zoo").exists()


def test_hub_names_are_downloaded_without_pickles(tmp_path, monkeypatch):
    """The hub's own layout: a snapshot of links into a folder of blobs."""
    import huggingface_hub

    asked = []

    def download(repository, revision=None, allow_patterns=None):
        asked.append((repository, revision, allow_patterns))
        cache = tmp_path / "cache" / repository.replace("/", "--")
        snapshot = cache / "snapshots" / "abc123"
        (cache / "blobs").mkdir(parents=True)
        snapshot.mkdir(parents=True)
        from peft import IA3Config

        config = IA3Config(target_modules=["fc1"], feedforward_modules=[])
        save_adapter(tmp_path / repository, "mlp", config, len(asked))
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            shutil.copy(tmp_path / repository / name, cache / "blobs" / name)
            (snapshot / name).symlink_to(cache / "blobs" / name)
        (snapshot / "evil.safetensors").symlink_to(tmp_path / "names.txt")
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    names = tmp_path / "names.txt"
    names.write_text("# adapters\norg/one\norg/two@v1  # a revision\n\norg/one\n")
    report = import_zoo(names, tmp_path / "zoo")
    patterns = ["*.safetensors", "*.json"]
    assert asked == [("org/one", None, patterns), ("org/two", "v1", patterns)]
    rows = Zoo(tmp_path / "zoo").rows
    assert [row.run for row in rows] == ["org/one", "org/two"]
    assert rows[1].metadata["hub"] == "org/two"
    assert rows[1].metadata["revision"] == "abc123"
    assert set(reasons(report)) == {"org/one/evil.safetensors", "org/two/evil.safetensors"}


def test_without_a_network_the_message_says_so(tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("org/does-not-exist\n")
    with pytest.raises(RunError, match=r"names.txt: org/does-not-exist cannot be downloaded \(the"):
        import_zoo(names, tmp_path / "zoo")


@pytest.mark.parametrize("text", ["", "# only words\n", "../etc\n", "https://x/y\n", "a b/c\n"])
def test_a_list_without_hub_names(tmp_path, text):
    names = tmp_path / "names.txt"
    names.write_text(text)
    with pytest.raises(UsageError, match=r"names.txt.* hub name"):
        import_zoo(names, tmp_path / "zoo")
