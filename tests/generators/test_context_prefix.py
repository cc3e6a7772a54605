"""A prefix from the base's own keys and values of a context."""

from __future__ import annotations

import pytest
import tiny_language as tiny
import torch
from torch.nn import functional as F

from hypergen.conditions import ContextEncoder, HashingEncoder
from hypergen.errors import SpecError
from hypergen.generators import ContextPrefix, Generator
from hypergen.specs import LoRASpec, PrefixSpec
from hypergen.targets import make_target

CONTEXT = "is it an animal or a thing ? cat : animal , cup : thing"


@pytest.fixture
def loaded():
    return tiny.causal()


def made(loaded, slots=8, takes="document", **options):
    encoder = ContextEncoder.from_model(
        loaded.model, loaded.tokenizer, slots=slots, takes=takes, end=""
    )
    torch.manual_seed(0)
    spec = PrefixSpec(loaded.model, num_virtual_tokens=slots)
    return ContextPrefix(spec, encoder, **{"hidden": 5, **options})


@pytest.mark.parametrize("options", [{}, {"hidden": 0}, {"hidden": 0, "bias": "none"}])
def test_untrained_it_is_the_model_with_the_context_in_its_prompt(loaded, options):
    context = loaded.tokenizer(CONTEXT, return_tensors="pt")["input_ids"]
    query = loaded.tokenizer("dog : fox", return_tensors="pt")["input_ids"]
    net = made(loaded, slots=context.shape[1], **options)
    out = make_target(loaded.model, net.spec)(
        net.generate(document=CONTEXT), {"input_ids": query}
    ).logits
    with torch.no_grad():
        told = loaded.model(torch.cat([context, query], 1)).logits[:, context.shape[1] :]
    torch.testing.assert_close(out, told, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bias", ["slot", "shared", "none"])
def test_training_reaches_every_parameter_and_lowers_the_loss(loaded, bias):
    net = made(loaded, bias=bias)
    target = make_target(loaded.model, net.spec)
    condition = net.encode(document=[CONTEXT, "dog cat hen"])
    ids = loaded.tokenizer(["dog : animal", "cup : thing"], return_tensors="pt")["input_ids"]
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    losses = []
    for step in range(12):
        logits = target(net(condition), {"input_ids": ids}).logits
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        if step:  # the first layer is behind a zero at first
            assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")  # PEFT's call
def test_stock_peft_reads_what_it_exports(loaded, tmp_path):
    from peft import PeftModel

    net = made(loaded)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    weights = net.generate(document=CONTEXT)
    ids = loaded.tokenizer("dog : fox", return_tensors="pt")["input_ids"]
    ours = make_target(loaded.model, net.spec)(weights, {"input_ids": ids}).logits
    weights.save_pretrained(tmp_path / "adapter")
    wrapped = PeftModel.from_pretrained(tiny.causal().model, str(tmp_path / "adapter")).eval()
    with torch.no_grad():
        torch.testing.assert_close(wrapped(ids).logits, ours, rtol=1e-4, atol=1e-4)


def test_saved_and_loaded_it_is_the_same(loaded, tmp_path):
    loaded.model.save_pretrained(tmp_path / "base")
    loaded.tokenizer.save_pretrained(tmp_path / "base")
    net = made(loaded)
    net.encoder._config["model"] = str(tmp_path / "base")
    net.save_pretrained(tmp_path / "net")
    again = Generator.from_pretrained(tmp_path / "net")
    assert torch.equal(
        again.generate(document=CONTEXT).flat(), net.generate(document=CONTEXT).flat()
    )


def test_text_and_demonstrations_together(loaded):
    net = made(loaded, takes="fused")
    demos = [[{"input": "cat", "output": "animal"}], []]
    weights = net.generate(text=["say it", "say the word"], demos=demos)
    assert torch.equal(weights[1].flat(), net.generate(text="say the word", demos=None).flat())


def test_what_does_not_fit_is_refused(loaded):
    encoder = made(loaded).encoder
    with pytest.raises(SpecError, match="PrefixSpec from a ContextEncoder"):
        ContextPrefix(LoRASpec(loaded.model, ["q_proj"], r=2), encoder)
    with pytest.raises(SpecError, match="PrefixSpec from a ContextEncoder"):
        ContextPrefix(PrefixSpec(loaded.model, 8), HashingEncoder(8))
    with pytest.raises(SpecError, match="keeps 8 tokens"):
        ContextPrefix(PrefixSpec(loaded.model, 9), encoder)
    with pytest.raises(SpecError, match="bias"):
        ContextPrefix(PrefixSpec(loaded.model, 8), encoder, bias="some")
