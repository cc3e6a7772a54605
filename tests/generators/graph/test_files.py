"""`hypergen init`, and state dicts written one parameter after the other."""

from __future__ import annotations

import json
from pathlib import Path

import architectures
import pytest
import safetensors.torch
import torch
from architectures import generator

import hypergen
from hypergen import cli
from hypergen._utils.errors import UsageError
from hypergen.conditions.graph import coverage, trace
from hypergen.conditions.graph.examples import EXAMPLES
from hypergen.generators.graph.files import write_weights


@pytest.fixture
def run(tmp_path) -> Path:
    folder = tmp_path / "run" / "generator"
    generator("ours").save_pretrained(folder)
    return folder.parent


def meta(name: str) -> torch.nn.Module:
    with torch.device("meta"):
        return EXAMPLES[name]()


@pytest.mark.parametrize("name", ["resnet", "gpt2", "lstm"])
def test_the_file_is_the_state_dict_of_the_initialised_network(name, run, tmp_path, capsys):
    file = tmp_path / "model.safetensors"
    assert cli.main(["init", name, "--generator", str(run), "--out", str(file)]) == 0
    assert "peak memory" in capsys.readouterr().out
    model, wanted = architectures.model(name), architectures.model(name)
    missing, unexpected = safetensors.torch.load_model(model, file)
    assert not missing
    assert not unexpected
    hypergen.init_(wanted, generator("ours"))
    for key, tensor in wanted.state_dict().items():
        torch.testing.assert_close(model.state_dict()[key], tensor)


def test_a_folder_is_what_from_pretrained_reads(run, tmp_path, capsys):
    import transformers

    folder = tmp_path / "model"
    words = ["init", "gpt2", "--generator", str(run), "--out", str(folder)]
    assert cli.main([*words, "--shard-size", "2e-5", "--dtype", "bfloat16", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert len(result["files"]) > 2
    assert result["coverage"]["complete"]
    assert result["bytes"] == sum(Path(f).stat().st_size for f in result["files"])
    assert result["peak_memory"] > 0
    read = transformers.GPT2LMHeadModel.from_pretrained(folder)
    wanted = architectures.model("gpt2")
    hypergen.init_(wanted, generator("ours"))
    for (key, a), b in zip(read.named_parameters(), wanted.parameters(), strict=True):
        torch.testing.assert_close(a, b.to(torch.bfloat16), msg=key)


def test_equal_input_gives_equal_bytes(run, tmp_path):
    files = [tmp_path / f"{i}.safetensors" for i in range(2)]
    for file in files:
        assert cli.main(["init", "vit", "--generator", str(run), "--out", str(file)]) == 0
    assert files[0].read_bytes() == files[1].read_bytes()


def test_what_is_kept_has_the_models_own_start(run, tmp_path, capsys):
    file = tmp_path / "model.safetensors"
    words = ["init", "vit", "--generator", str(run), "--out", str(file), "--keep", "classifier.*"]
    assert cli.main([*words, "--seed", "3"]) == 0
    assert "kept by 'classifier.*'" in capsys.readouterr().out
    torch.manual_seed(3)
    assert torch.equal(
        safetensors.torch.load_file(file)["classifier.weight"],
        EXAMPLES["vit"]().classifier.weight.detach(),
    )
    assert torch.get_rng_state().numel()


def test_without_the_models_own_start_what_needs_it_is_named(tmp_path):
    model = meta("vit")
    graph = trace(model)
    report = coverage(model, graph=graph, keep="classifier.*")
    with pytest.raises(UsageError, match=r"'classifier\.weight' is not generated"):
        write_weights(tmp_path / "a.safetensors", model, generator("ours"), graph, report)
    assert not list(tmp_path.iterdir())


def test_running_statistics_of_a_network_without_memory_are_those_before_training(tmp_path):
    model = meta("resnet")
    graph = trace(model)
    report = coverage(model, graph=graph)
    write_weights(tmp_path / "a.safetensors", model, generator("ours"), graph, report)
    found = safetensors.torch.load_file(tmp_path / "a.safetensors")
    for key, tensor in architectures.model("resnet").state_dict().items():
        assert found[key].dtype == tensor.dtype
        if "running" in key or "num_batches" in key:
            assert torch.equal(found[key], tensor)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "model.bin"], "name a file that ends in .safetensors"),
        (["--keep", "nothing.*"], "keep='nothing.*' matches no parameter"),
        (["--shard-size", "0"], "--shard-size 0"),
        (["--kwargs", "{"], "--kwargs is not JSON"),
    ],
)
def test_wrong_words_are_one_line(words, message, run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = ["init", "mlp" if "--kwargs" not in words else "tests:no", "--generator", str(run)]
    given = words if "--out" in words else ["--out", "m.safetensors", *words]
    assert cli.main([*line, *given]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "m.safetensors").exists()


def test_another_kind_of_generator_is_refused(tmp_path, capsys):
    from hypergen import FullSpec, MLPGenerator, TaskEncoder

    spec = FullSpec(torch.nn.Linear(2, 2))
    MLPGenerator(spec, TaskEncoder(2, dim=4)).save_pretrained(tmp_path / "other")
    words = ["init", "mlp", "--generator", str(tmp_path / "other"), "--out", "x.safetensors"]
    assert cli.main(words) == 2
    assert "MLPGenerator, which takes no architectures" in capsys.readouterr().err
