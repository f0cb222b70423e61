"""Names of amateurs that are made of the expert."""

import pytest

from lightreasoner import config, derivation
from lightreasoner.config import Params
from lightreasoner.derivation import Derivation
from lightreasoner.errors import ConfigError


@pytest.mark.parametrize("made", [Derivation("layers", 1), Derivation("bits", 2)])
def test_a_name_is_what_it_says(made: Derivation) -> None:
    assert derivation.parse(str(made)) == made


@pytest.mark.parametrize("name", ["microworld/amateur", "Qwen/Qwen2.5-0.5B", "./self:layers:1", ""])
def test_other_names_are_models(name: str) -> None:
    assert derivation.parse(name) is None


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("self:layer:2", "must be self:layers:N or self:bits:N"),
        ("self:", "must be self:layers:N or self:bits:N"),
        ("self:bits:3 ", "must be self:layers:N or self:bits:N"),
        ("self:layers:-1", "must be self:layers:N or self:bits:N"),
        ("self:layers:0", "must be self:layers:N with N from 1 to 9,999"),
        ("self:bits:1", "must be self:bits:N with N from 2 to 8"),
        ("self:bits:9", "must be self:bits:N with N from 2 to 8"),
    ],
)
def test_a_slip_is_refused_with_the_parameters(name: str, said: str, tiny_params: Params) -> None:
    with pytest.raises(ConfigError) as caught:
        config.changed(tiny_params, [f"models.amateur='{name}'"])
    assert caught.value.faults == [f"parameters: models.amateur {said}, got {name!r}"]


def test_the_expert_is_made_of_nothing(tiny_params: Params) -> None:
    with pytest.raises(ConfigError, match=r"models\.expert must be a model of its own"):
        config.changed(tiny_params, ["models.expert=self:bits:4"])
