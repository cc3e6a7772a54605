"""Training on plain text: what batches ask for, whose weights answer, and exact repetition."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import tiny_documents as documents
import tiny_language as tiny
import torch
from lightning.pytorch import Callback

from hypergen.conditions import DocumentEncoder
from hypergen.errors import UsageError
from hypergen.generators import MLPGenerator
from hypergen.generators.fast_weights.generative_adapter import GenerativeAdapter
from hypergen.training import GeneratorModule, fit
from hypergen.training.objectives import make_objective
from hypergen.training.text import PlainTextDataModule
from hypergen.zoo.language.tokens import IGNORED

LORA = {"r": 2, "target_modules": ["q_proj", "v_proj"]}
CHUNKS = {"chunk_size": 8}
ALL = {"completion": 1.0, "reconstruction": 0.5, "caclm": 2.0}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return documents.save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return documents.write_text(tmp_path_factory.mktemp("text") / "t")


def data(model, text, **options):
    given = {
        "method": LORA,
        "encoder": documents.HashedDocuments(16),
        "chunk_size": 8,
        "window": 40,
        "windows_per_batch": 2,
        "val_share": 0.3,
        "val_windows": 3,
    }
    return PlainTextDataModule(text, model, **{**given, **options})


def reading(model, text, **options):
    """With the base's own hidden states."""
    given = {"encoder": "document", "encoder_args": CHUNKS, "chunk_size": None}
    return data(model, text, **{**given, **options})


def perturbed(generator):
    for parameter in generator.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape)
    return generator


def first(module):
    return next(iter(module.train_dataloader()))


def labels_of(batch):
    return [row[row != IGNORED].tolist() for row in batch["labels"]]


def words(tokens):
    return tiny.tokenizer().decode(tokens)


@pytest.mark.parametrize("mode", ["completion", "reconstruction", "caclm"])
@pytest.mark.parametrize("method", [LORA, {"num_virtual_tokens": 3}])
def test_a_step_of_every_mode_reaches_the_generator(model, text, mode, method):
    module = data(model, text, modes={mode: 1.0}, method=method)
    objective = make_objective("task", module)
    generator = perturbed(MLPGenerator(module.spec, module.encoder, hidden=8, depth=1))
    batch = first(module)
    loss = generator.loss(batch, objective)
    assert 0 < float(loss.detach()) < 20
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in generator.parameters())
    # Logits of what is predicted, and no others.
    weights = module.spec.from_flat(torch.zeros(len(batch["labels"]), module.spec.numel))
    shape = module.target(weights, batch["inputs"]).shape
    assert shape[:2] == batch["labels"].shape


def test_what_is_completed_is_not_in_the_condition(model, text):
    seen = []
    module = data(model, text, modes={"completion": 1.0}, lead=2)
    encode = module.encoder.forward
    module.encoder.forward = lambda raw: seen.append(raw) or encode(raw)
    loader = iter(module.train_dataloader())
    corpus = [" ".join(p.read_text().split()) for p in module.corpus.files]
    for _ in range(10):
        batch = next(loader)
        for raw, ids, labels in zip(
            seen.pop(), batch["inputs"]["input_ids"], labels_of(batch), strict=True
        ):
            assert raw.split()[-2:] == words(ids[:2]).split()
            assert any(f"{raw} {words(labels)}" in document for document in corpus)
            assert len(raw.split()) % 8 == 0


def test_spans_are_of_the_chunks_that_were_read(model, text):
    module = reading(model, text, modes={"reconstruction": 1.0}, prefixes="all")
    seen = []
    encode = module.encoder.forward
    module.encoder.forward = lambda raw: seen.append(raw) or encode(raw)
    batch = first(module)
    chunks = batch["condition"].tokens.shape[1] // 8
    for row, labels, ids in zip(
        batch["gather"].tolist(), labels_of(batch), batch["inputs"]["input_ids"], strict=True
    ):
        read = seen[0][row // chunks].split()[: 8 * (row % chunks + 1)]
        assert " ".join([words(ids[:1]), words(labels)]) in " ".join(read)


def test_caclm_reads_a_and_d_and_predicts_c_behind_b(model, text):
    module = data(model, text, modes={"caclm": 1.0}, encoder=documents.HashedDemos(16))
    seen = []
    encode = module.encoder.forward
    module.encoder.forward = lambda raw: seen.append(raw) or encode(raw)
    batch = first(module)
    corpus = [" ".join(p.read_text().split()) for p in module.corpus.files]
    for raw, ids in zip(seen[0], batch["inputs"]["input_ids"], strict=True):
        assert any(f"{raw[0]['input']} {words(ids)} {raw[0]['output']}" in c for c in corpus)
    assert [len(labels) for labels in labels_of(batch)] == [10, 10]


def test_all_prefixes_are_what_each_prefix_gives_alone(model, text):
    module = reading(model, text, modes=ALL, prefixes="all")
    generator = perturbed(GenerativeAdapter(module.spec, module.encoder, state_rank=4))
    seen = []
    encode = module.encoder.forward
    module.encoder.forward = lambda raw: seen.append(raw) or encode(raw)
    batch = first(module)
    assert batch["prefixes"]
    got = []
    generator.loss(batch, lambda weights, _: got.append(weights) or weights.flat().sum())
    chunks = batch["condition"].tokens.shape[1] // 8
    assert len(got[0]) == len(batch["labels"]) > 2 * 2 * 4
    for row, weights in zip(batch["gather"].tolist(), got[0], strict=True):
        read = " ".join(seen[0][row // chunks].split()[: 8 * (row % chunks + 1)])
        alone = generator(encode([read]))
        assert torch.allclose(weights.flat(), alone.flat(), atol=1e-5)


def test_modes_count_as_their_weights_say(model, text):
    module = reading(model, text, modes=ALL, prefixes="all")
    batch = first(module)
    share = batch["share"].sum(1)
    lengths = torch.tensor([len(labels) for labels in labels_of(batch)])
    total = {float(w) for w in (share / lengths).unique()}
    assert float(share.sum()) == pytest.approx(2 * sum(ALL.values()))
    assert len(total) >= 3
    few = reading(model, text, modes=ALL, prefixes="all", most_rows=2)
    assert len(first(few)["labels"]) == 2 * (2 + 1)


@pytest.mark.parametrize("prefixes", ["all", "one"])
def test_the_teacher_has_the_condition_in_its_prompt(model, text, prefixes):
    module = reading(model, text, modes={**ALL, "distillation": 1.0}, prefixes=prefixes)
    seen = []
    encode = module.encoder.forward
    module.encoder.forward = lambda raw: seen.append(raw) or encode(raw)
    batch = first(module)
    base = tiny.causal().model
    rows = batch["gather"].tolist()
    chunks = batch["condition"].tokens.shape[1] // 8 if prefixes == "all" else 1
    tokenizer = tiny.tokenizer()
    checked = 0
    for row, ids, labels, logits in zip(
        rows, batch["inputs"]["input_ids"], labels_of(batch), batch["teacher_logits"], strict=True
    ):
        read = tokenizer(seen[0][row // chunks])["input_ids"]
        if prefixes == "all":
            read = read[: 8 * (row % chunks + 1)]
        shown = [t for t in ids.tolist() if t]
        texts = [[*read, *labels], [*read, *shown]]  # what goes on, and spans of what was read
        found = [base(torch.tensor([t])).logits[0, -len(labels) - 1 : -1] for t in texts]
        checked += any(torch.allclose(logits[: len(labels)], f, atol=1e-4) for f in found)
    assert checked == len(rows)
    objective = make_objective("task", module)
    assert float(objective(module.spec.neutral(len(rows)), batch)) > 0


def test_distillation_alone_is_that_of_what_goes_on(model, text):
    module = reading(model, text, modes={"distillation": 1.0})
    batch = first(module)
    teacher = module.target.base
    objective = make_objective("task", module)
    weights = module.spec.neutral(len(batch["labels"]))
    by_name = make_objective("distillation", module)
    assert float(objective(weights, batch)) == pytest.approx(float(by_name(weights, batch)))
    own = {**batch, "teacher_logits": teacher(batch["inputs"])}
    assert abs(float(objective(weights, own))) < 1e-6


def same(a, b):
    return torch.equal(a["labels"], b["labels"]) and torch.equal(
        a["inputs"]["input_ids"], b["inputs"]["input_ids"]
    )


def test_a_batch_is_a_function_of_seed_and_number(model, text):
    module, again = (data(model, text, modes=ALL) for _ in range(2))
    loader = iter(module.train_dataloader())
    batches = [next(loader) for _ in range(3)]
    later = again.train_dataloader()
    later.load_state_dict({"position": 2})
    assert same(next(iter(later)), batches[2])
    assert not same(batches[0], batches[1])
    assert not same(first(data(model, text, modes=ALL, seed=1)), batches[0])


def test_processes_share_one_batch(model, text, monkeypatch):
    whole = first(data(model, text, modes={"reconstruction": 1.0}))
    parts = []
    for rank in range(2):
        module = data(model, text, modes={"reconstruction": 1.0})
        monkeypatch.setattr(module, "trainer", SimpleNamespace(global_rank=rank, world_size=2))
        parts += labels_of(first(module))
    assert parts == labels_of(whole)
    module = data(model, text, windows_per_batch=3)
    monkeypatch.setattr(module, "trainer", SimpleNamespace(global_rank=0, world_size=2))
    with pytest.raises(UsageError, match="take a multiple of 2"):
        module.train_dataloader()


def test_an_encoder_that_is_trained_gets_the_text(model, text):
    module = data(model, text, encoder=documents.Trained(16))
    batch = first(module)
    assert "condition" not in batch
    assert len(batch["raw"]) == 2
    generator = perturbed(MLPGenerator(module.spec, module.encoder, hidden=8, depth=1))
    before = module.encoder.scale.clone()
    fit(GeneratorModule(generator, "task"), module, max_steps=1, log_every=1)
    assert not torch.equal(module.encoder.scale, before)
    module.encoder.chunk_size = 8
    module.prefixes = "all"
    with pytest.raises(UsageError, match="not trained"):
        first(module)


class Stop(Callback):
    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, trainer, pl_module, *args):
        if trainer.global_step == self.step:
            raise RuntimeError("stopped")


def run(model, text, folder, **options):
    module = reading(model, text, modes={**ALL, "distillation": 0.5}, epoch=3)
    torch.manual_seed(0)
    generator = GenerativeAdapter(module.spec, module.encoder, state_rank=4)
    given = {"max_steps": 5, "checkpoint_every": 2, "val_every": 2, "log_every": 1}
    fit(GeneratorModule(generator, "task", lr=1e-2), module, folder, **{**given, **options})
    return generator


def test_resumed_is_straight_bit_by_bit(model, text, tmp_path):
    straight = run(model, text, tmp_path / "a").state_dict()
    with pytest.raises(RuntimeError, match="stopped"):
        run(model, text, tmp_path / "b", callbacks=[Stop(3)])
    resumed = run(model, text, tmp_path / "b", resume=True).state_dict()
    assert all(torch.equal(straight[key], resumed[key]) for key in straight)
    assert (tmp_path / "a" / "text.json").is_file()
    rows = [(tmp_path / name / "metrics.csv").read_bytes() for name in "ab"]
    assert rows[0] == rows[1]
    assert b"val/loss" in rows[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modes": {"complete": 1.0}}, "Did you mean 'completion'"),
        ({"modes": {"completion": -1.0}}, "must not be negative"),
        ({"modes": {"completion": 0.0}}, "no mode is left"),
        ({"window": 12}, "window=12 is below"),
        ({"caclm_parts": [1, 1, 1]}, "caclm_parts"),
        ({"encoder": documents.HashedDemos(16)}, "'caclm' alone"),
        ({"encoder": "documents"}, "encoder is 'documents'"),
        ({"encoder": "document", "encoder_args": {"chunks": 3}}, "encoder_args"),
        ({"method": {"num_virtual_tokens": 0}}, "method: num_virtual_tokens"),
        ({"encoder": "document", "method": {"num_virtual_tokens": 2}}, "encoder_args.modules"),
        ({"text": None}, "--data.text"),
    ],
)
def test_a_wrong_option_is_named(model, text, options, message):
    given = {"text": text, **options}
    with pytest.raises(UsageError, match=message):
        data(model, given.pop("text"), **given).build()


def test_the_encoder_reads_with_the_targets_own_model(model, text):
    module = reading(model, text)
    assert isinstance(module.encoder, DocumentEncoder)
    own = {p.data_ptr() for p in module.target.model.parameters()}
    held = {p.data_ptr() for p in module.encoder._base().model.parameters()}
    assert own == held
