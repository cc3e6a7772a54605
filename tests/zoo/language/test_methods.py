"""A method that names a module which is not there says so, and what was probably meant."""

from __future__ import annotations

import pytest
from tiny_language import all_tasks, causal, t5

from hypergen.errors import SpecError, UsageError
from hypergen.training.language import LanguageDataModule
from hypergen.zoo.language.methods import method_spec
from hypergen.zoo.language.recipe import AdapterZoo


@pytest.fixture
def model(tmp_path):
    made = causal()
    made.model.save_pretrained(tmp_path / "model")
    made.tokenizer.save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


@pytest.mark.parametrize(
    ("modules", "told"),
    [
        (["q_porj"], "target module 'q_porj' is not in the model. Did you mean 'q_proj'"),
        (["q_proj", "c_attn"], "target module 'c_attn' is not in the model"),
        (r".*\.attention\..*", "no module of LlamaForCausalLM matches"),
    ],
)
def test_recipes_name_the_module_that_matches_nothing(model, tmp_path, modules, told):
    folder, method = str(all_tasks(tmp_path / "tasks")), {"r": 2, "target_modules": modules}
    options = {"encoder": "hashing", "heldout_families": [], "val_families": []}
    with pytest.raises(SpecError) as caught:
        LanguageDataModule(model, folder, method=method, **options).build()
    assert told in str(caught.value)
    with pytest.raises(SpecError) as caught:
        AdapterZoo("tiny", model, folder, method=method).header()
    assert told in str(caught.value)


def test_the_task_type_is_that_of_the_model():
    found = [method_spec(make(), {"r": 1}).config["task_type"] for make in (causal, t5)]
    assert found == ["CAUSAL_LM", "SEQ_2_SEQ_LM"]


def test_arguments_that_a_method_does_not_take_are_refused():
    with pytest.raises(UsageError, match="LoRA does not take"):
        method_spec(causal(), {"rank": 2})
    with pytest.raises(UsageError, match=r"PEFT does not take .*rank.*: Unexpected"):
        method_spec(causal(), {"peft_type": "LORA", "rank": 2})
