"""The oracle of the fuzz tests: what it lets through, and that it can fail."""

from collections.abc import Callable
from random import Random
from typing import Any

import fuzzing
import pytest

from lightreasoner.errors import ConfigError, ProblemsError


def refuse(error: Exception) -> Callable[[], None]:
    def call() -> None:
        raise error

    return call


def test_what_is_accepted_or_refused_in_a_line_passes() -> None:
    assert fuzzing.cope(lambda: 1) is None
    assert fuzzing.cope(refuse(ProblemsError("a: is b; do c"))) == "a: is b; do c"
    assert fuzzing.cope(refuse(ConfigError(["a", "b"]))) == "a; b"


def many_faults() -> ConfigError:
    error = ConfigError(["a"])
    error.faults *= 1_000
    return error


def spin() -> None:
    while True:
        pass


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (refuse(ValueError("bad")), "bad"),
        (refuse(ProblemsError("")), "empty"),
        (refuse(ProblemsError("a\nb")), "several lines"),
        (refuse(ProblemsError("a\u2028b")), "several lines"),
        (refuse(ProblemsError("\x1b[31mred")), "control characters"),
        (refuse(ProblemsError("x" * 3_000)), "3,000 characters"),
        (refuse(many_faults()), "too many lines"),
        (lambda: bytearray(1 << 28), None),
        (spin, "CPU time"),
    ],
)
def test_all_else_fails(
    call: Callable[[], object], said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fuzzing, "CPU_SECONDS", 0.2)
    monkeypatch.setattr(fuzzing, "MEMORY", 1 << 26)
    with pytest.raises((Exception, fuzzing.TooSlowError), match=said):
        fuzzing.cope(call)


def test_a_bad_case_is_named_and_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail_above(number: float) -> None:
        assert number < 0.9

    with pytest.raises(AssertionError, match=r"FUZZ_SEED=0 FUZZ_CASE=\d+") as first:
        fuzzing.fuzz(Random.random, fail_above, quick=1_000)
    number = str(first.value).partition("FUZZ_CASE=")[2].partition(":")[0]
    monkeypatch.setenv("FUZZ_CASE", number)
    with pytest.raises(AssertionError) as second:
        fuzzing.fuzz(Random.random, fail_above, quick=1)
    assert str(second.value) == str(first.value)


def test_cases_are_the_seeds() -> None:
    def make(seed: int) -> list[Any]:
        rng = Random(seed)
        tree = fuzzing.damaged_tree(rng, {"a": [1, {"b": "c"}]})
        return [repr(tree), fuzzing.damaged(rng, b"0123456789")]

    assert make(1) == make(1)
    assert len({str(make(seed)) for seed in range(50)}) > 40
