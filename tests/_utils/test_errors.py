"""The errors and the hints that go with them."""

import pytest

import hypergen.errors as public
from hypergen._utils import errors
from hypergen._utils.errors import did_you_mean


def test_every_error_is_public_and_can_be_caught_as_one():
    own = {
        name: value
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, Exception)
    }
    assert set(public.__all__) == set(own)
    for name, value in own.items():
        assert getattr(public, name) is value
        assert issubclass(value, errors.HypergenError)


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (errors.SpecError, ValueError),
        (errors.ConditionError, ValueError),
        (errors.WeightsError, ValueError),
        (errors.RunError, ValueError),
        (errors.RunNotFoundError, FileNotFoundError),
        (errors.RunNotFoundError, errors.RunError),
        (errors.UsageError, ValueError),
        (errors.MissingExtraError, ImportError),
    ],
)
def test_errors_keep_their_message_and_are_the_builtins_that_callers_expect(error, builtin):
    raised = error("slot 'a.b' has shape [2]")
    assert isinstance(raised, builtin)
    assert str(raised) == "slot 'a.b' has shape [2]"


@pytest.mark.parametrize(
    ("word", "choices", "hint"),
    [
        ("dmeo", ["fit", "demo"], " Did you mean 'demo'?"),
        ("TextToLora", ["TextToLoRA", "MLPGenerator"], " Did you mean 'TextToLoRA'?"),
        ("zzz", ["fit", "demo", "fit"], " Choose from: demo, fit."),
        ("zzz", [], ""),
    ],
)
def test_did_you_mean(word, choices, hint):
    assert did_you_mean(word, choices) == hint
