from __future__ import annotations

import pytest
from tiny_language import kinds, tokenizer, write_tasks

from hypergen.errors import UsageError
from hypergen.zoo.language import Prompt, read_task


@pytest.fixture
def task(tmp_path):
    return read_task(write_tasks(tmp_path, kinds=kinds()) / "kinds.json")


def test_a_plain_prompt_holds_what_is_asked_for(task):
    instance = task.instances["train"][1]
    assert Prompt().text(task, instance) == "Input: dog\nOutput:"
    assert Prompt(description=True, examples=1).text(task, instance, description=1) == (
        "say animal or very big thing .\n\nInput: cat\nOutput: animal\n\nInput: dog\nOutput:"
    )
    assert Prompt(examples=1).text(task, instance) == (
        "Input: cat\nOutput: animal\n\nInput: dog\nOutput:"
    )
    assert Prompt().answer("thing") == " thing"


def test_a_chat_prompt_is_the_tokenizers_template(task):
    chat = tokenizer()
    chat.chat_template = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    prompt = Prompt(description=True, template="chat")
    text = prompt.text(task, task.instances["train"][0], tokenizer=chat)
    words = f"{task.descriptions[0]}\n\nInput: cat"
    message = [{"role": "user", "content": words}]
    assert text == chat.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
    assert prompt.answer("thing") == "thing"


def test_bad_settings_are_named(task):
    with pytest.raises(UsageError, match="template is 'xml'"):
        Prompt(template="xml")
    with pytest.raises(UsageError, match="examples is -1"):
        Prompt(examples=-1)
    with pytest.raises(UsageError, match="'kinds' has 1 examples, 2 are asked"):
        Prompt(examples=2).head(task, "x")
    with pytest.raises(UsageError, match="no chat template"):
        Prompt(template="chat").tail(tokenizer())
