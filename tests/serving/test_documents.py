"""`hypergen generate --document`: files of any size, each its own adapter or all in one."""

from __future__ import annotations

import io
import json

import pytest
import tiny_language
import torch
from generating import options, scrambled

from hypergen import cli
from hypergen.conditions import DocumentEncoder, HashingEncoder
from hypergen.errors import ConditionError, UsageError
from hypergen.generators import GenerativeAdapter, load
from hypergen.serving import documents, generate_command, load_adapter
from hypergen.specs import LoRASpec

TEXTS = {"a.txt": "cat dog cow hen\nfox owl pig", "b.txt": "pen box\n" * 20, "c.txt": "hat"}


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """A run whose generator reads with a base in a folder of its own."""
    folder = tmp_path_factory.mktemp("documents")
    base = tiny_language.causal()
    base.model.save_pretrained(folder / "base")
    base.tokenizer.save_pretrained(folder / "base")
    base.model.config._name_or_path = str(folder / "base")
    spec = LoRASpec(base.model, ["q_proj", "v_proj"], r=2, task_type="CAUSAL_LM")
    torch.manual_seed(0)
    encoder = DocumentEncoder(str(folder / "base"), spec.modules, chunk_size=4, batch_size=2)
    generator = GenerativeAdapter(spec, encoder, state_rank=4)
    with torch.no_grad():
        for family in generator._families():
            family.out.normal_(std=0.1)
    generator.save_pretrained(folder / "run" / "generator")
    return folder / "run"


@pytest.fixture
def files(tmp_path):
    for name, text in TEXTS.items():
        (tmp_path / name).write_text(text)
    return {name: str(tmp_path / name) for name in TEXTS}


def flat(folder, run):
    """The numbers of an adapter's folder, in the order of the spec of a run."""
    return load_adapter(folder, load(run).spec).flat()


def test_every_file_becomes_an_adapter(reader, files, tmp_path):
    out = tmp_path / "out"
    words = ["generate", str(reader), "--document", *files.values(), "--out", str(out)]
    assert cli.main([*words, "--n", "2"]) == 0
    index = json.loads((out / "index.json").read_text())
    assert list(index.values()) == [name for name in TEXTS for _ in range(2)]
    generator = load(reader)
    for i, (name, text) in enumerate(TEXTS.items()):
        wanted = generator.generate(document=text).flat()
        for draw in range(2):
            folder = out / f"{2 * i + draw:04d}"
            torch.testing.assert_close(flat(folder, reader), wanted)
            card = (folder / "README.md").read_text()
            assert f'document: "{name}"' in card
            assert str(tmp_path) not in card
            assert "cat dog" not in card


def test_several_files_become_one_adapter(reader, files, tmp_path):
    out = tmp_path / "out"
    generate_command(options(reader, out, document=list(files.values()), as_one=True))
    generator = load(reader)
    state = generator.state()
    for text in TEXTS.values():
        state.update(text)
    torch.testing.assert_close(flat(out, reader), state.weights().flat())
    assert 'document: "a.txt, b.txt, c.txt"' in (out / "README.md").read_text()
    with pytest.raises(UsageError, match="--mix needs two"):
        generate_command(options(reader, out, document=list(files.values()), as_one=True, mix=[]))


def test_standard_input_is_a_document(reader, monkeypatch, tmp_path):
    monkeypatch.setattr("sys.stdin", io.StringIO(TEXTS["a.txt"]))
    generate_command(options(reader, tmp_path / "out", document=["-"]))
    wanted = load(reader).generate(document=TEXTS["a.txt"])
    torch.testing.assert_close(flat(tmp_path / "out", reader), wanted.flat())
    assert 'document: "standard input"' in (tmp_path / "out" / "README.md").read_text()
    monkeypatch.setattr("sys.stdin", io.StringIO(" \n"))
    with pytest.raises(ConditionError, match="standard input is empty"):
        generate_command(options(reader, tmp_path / "out", document=["-"]))
    with pytest.raises(UsageError, match="named once"):
        generate_command(options(reader, tmp_path / "out", document=["-", "-"]))


def test_updates_of_documents_are_mixed_and_merged(reader, files, tmp_path):
    both = [files["a.txt"], files["b.txt"]]
    generate_command(options(reader, tmp_path / "mixed", document=both, mix=[2.0, -1.0]))
    generator = load(reader)
    base = tiny_language.causal().model
    wide = LoRASpec(base, ["q_proj", "v_proj"], r=4, alpha=4, task_type="CAUSAL_LM")
    mixed = load_adapter(tmp_path / "mixed", wide)
    made = generator.generate(document=[TEXTS["a.txt"], TEXTS["b.txt"]])
    for path in generator.spec.modules:
        parts = generator.spec.delta(made, path)
        wanted = 2 * parts[:1] - parts[1:]
        torch.testing.assert_close(mixed.spec.delta(mixed, path), wanted, rtol=1e-4, atol=1e-5)
    args = options(
        reader, tmp_path / "merged", document=both[:1], merge=True, load_base=cli._load_base
    )
    generate_command(args)
    assert (tmp_path / "merged" / "model.safetensors").exists()
    assert (tmp_path / "merged" / "tokenizer.json").exists()


def test_files_are_streamed_in_blocks(reader, files, tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "_BLOCK", 7)
    accents = tmp_path / "d.txt"
    accents.write_bytes("é cat dog ü\n".encode() * 9)
    (one,) = documents.documents(str(accents))
    assert "".join(one.blocks()) == accents.read_text()
    assert all(len(block) <= 7 for block in one.blocks())
    monkeypatch.setattr(documents.TextDocument, "read", None)  # nothing is read whole
    generate_command(options(reader, tmp_path / "out", document=[files["b.txt"]]))
    wanted = load(reader).generate(document=TEXTS["b.txt"])
    torch.testing.assert_close(flat(tmp_path / "out", reader), wanted.flat())


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (b"\x00\x01cat", UsageError, r"d\.txt cannot be read as text: it is a binary file"),
        (b"cat \xff\xfe", UsageError, r"d\.txt cannot be read as text"),
        (b"cat dog\n" * 9 + b"\x00", ConditionError, r"d\.txt holds NUL characters"),
        (b" \n", UsageError, r"d\.txt is empty"),
        (b" " * 20, ConditionError, r"d\.txt is empty"),
        (None, UsageError, r"d\.txt does not exist"),
    ],
)
def test_bad_files_are_named_and_nothing_is_written(
    reader, tmp_path, monkeypatch, content, error, message
):
    monkeypatch.setattr(documents, "_BLOCK", 16)
    path = tmp_path / "d.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(error, match=message):
        generate_command(options(reader, tmp_path / "out", document=[str(path)]))
    assert not (tmp_path / "out").exists()


def test_other_generators_get_the_whole_text(files, tmp_path):
    class LetterEncoder(HashingEncoder):
        input_name = "document"

    base = tiny_language.causal()
    generator = scrambled(LoRASpec(base.model, ["q_proj"], r=2), LetterEncoder(16))
    generator.save_pretrained(tmp_path / "run")
    both = [files["a.txt"], files["c.txt"]]
    generate_command(options(tmp_path / "run", tmp_path / "two", document=both))
    generate_command(options(tmp_path / "run", tmp_path / "one", document=both, as_one=True))
    wanted = generator.generate(document=[TEXTS["a.txt"], TEXTS["c.txt"]])
    torch.testing.assert_close(flat(tmp_path / "two" / "0001", tmp_path / "run"), wanted[1].flat())
    joined = generator.generate(document=f"{TEXTS['a.txt']}\n\n{TEXTS['c.txt']}")
    torch.testing.assert_close(flat(tmp_path / "one", tmp_path / "run"), joined.flat())


def test_as_one_is_for_documents(reader, tmp_path):
    with pytest.raises(UsageError, match="--as-one reads several files"):
        generate_command(options(reader, tmp_path / "out", text="a", as_one=True))
