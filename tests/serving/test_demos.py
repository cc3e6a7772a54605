"""`hypergen generate --demos`: adapters from files of demonstrations, beside a sentence."""

from __future__ import annotations

import json

import pytest
import torch
from generating import build, options

from hypergen import cli, load
from hypergen.conditions import DemoEncoder, FusedEncoder, HashingEncoder
from hypergen.errors import ConditionError
from hypergen.generators import TransformerGenerator
from hypergen.serving import generate_command, load_adapter
from hypergen.specs import LoRASpec
from hypergen.specs.merging import exact_mix

ROWS = [
    [{"input": "cat", "output": "animal"}, {"input": "cup", "output": "thing"}],
    [{"input": "up", "output": ["down", "low"]}],
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that reads sentences, demonstrations, or both."""
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    text = HashingEncoder(16)
    encoder = FusedEncoder({"text": text, "demos": DemoEncoder(text, 8)}, 8)
    net = TransformerGenerator(LoRASpec(build(), r=2), encoder, dim=8, depth=1, heads=2)
    for parameter in net.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape)
    net.save_pretrained(folder / "generator")
    return folder


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / "first.jsonl", tmp_path / "second.jsonl"]
    for path, rows in zip(paths, ROWS, strict=True):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [str(path) for path in paths]


def tensors(folder):
    from safetensors.torch import load_file

    return torch.cat([t.flatten() for _, t in sorted(load_file(folder).items())])


def adapter(folder):
    return tensors(folder / "adapter_model.safetensors")


def test_several_files_are_several_adapters_beside_one_sentence(run, files, tmp_path, capsys):
    words = ["generate", str(run), "--text", "say what it is", "--out", str(tmp_path / "both")]
    assert cli.main([*words, "--demos", files[0], "--demos", files[1]]) == 0
    index = json.loads((tmp_path / "both" / "index.json").read_text())
    assert index == {
        "0000": "say what it is (first.jsonl)",
        "0001": "say what it is (second.jsonl)",
    }
    first, second = (adapter(tmp_path / "both" / n) for n in ("0000", "0001"))
    assert not torch.allclose(first, second, atol=1e-3)
    generator = load(run)
    weights = generator.generate(["say what it is"] * 2, demos=ROWS)
    weights[0].save_pretrained(tmp_path / "python")
    assert torch.equal(adapter(tmp_path / "python"), first)
    alone = generator.generate("say what it is", demos=ROWS[0]).flat()
    assert torch.allclose(alone, weights.flat()[:1], atol=1e-6)
    card = (tmp_path / "both" / "0001" / "README.md").read_text()
    assert 'demos: "second.jsonl"' in card
    assert "> say what it is" in card
    assert "animal" not in card  # what a file holds may be private


def test_demonstrations_alone_sentences_alone_and_no_order(run, files, tmp_path):
    made = {}
    backwards = tmp_path / "backwards.jsonl"
    backwards.write_text("".join(json.dumps(row) + "\n" for row in ROWS[0][::-1]))
    for name, given in {
        "demos": {"demos": files[0]},
        "backwards": {"demos": str(backwards)},
        "text": {"text": "say what it is"},
        "both": {"demos": files[0], "text": "say what it is"},
    }.items():
        generate_command(options(run, tmp_path / name, **given))
        made[name] = adapter(tmp_path / name)
    assert torch.equal(made["demos"], made.pop("backwards"))
    assert float(torch.pdist(torch.stack(list(made.values()))).min()) > 1e-3


def test_adapters_of_several_files_are_mixed(run, files, tmp_path):
    found = generate_command(options(run, tmp_path / "mix", demos=files, mix=[2.0, -1.0]))
    assert len(found["out"]) == 1
    mixed = exact_mix(load(run).generate(demos=ROWS), [2.0, -1.0])
    stored = load_adapter(tmp_path / "mix", mixed.spec)
    assert torch.allclose(stored.flat(), mixed.flat(), atol=1e-6)


def test_a_generator_that_reads_sentences_says_so(files, tmp_path):
    torch.manual_seed(0)
    net = TransformerGenerator(LoRASpec(build(), r=2), HashingEncoder(16), dim=8, depth=1, heads=2)
    net.save_pretrained(tmp_path / "plain" / "generator")
    with pytest.raises(ConditionError, match="conditioned on text, but got demos, text"):
        generate_command(options(tmp_path / "plain", tmp_path / "o", demos=files[:1], text="a"))
    assert not (tmp_path / "o").exists()
