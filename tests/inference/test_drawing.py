"""Draws: the distribution of softmax(logits / temperature), by one uniform a row."""

from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightreasoner.inference.drawing import UNSOUND, choose, draw_tokens, uniforms

LAST = 1 - 2.0**-53
"""The largest number that a generator gives."""


def first(seeds: range) -> torch.Tensor:
    """The first number of each seed's generator."""
    return uniforms([Random(seed) for seed in seeds], 1, torch.device("cpu"))[0]


def drawn(logits: torch.Tensor, temperature: float, *uniforms: float) -> list[int]:
    """Ids of one row's logits, one for each uniform."""
    rows = logits.expand(len(uniforms), -1)
    return draw_tokens(rows, temperature, torch.tensor(uniforms, dtype=torch.float64)).tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_each_id_has_its_share_of_the_uniforms(dtype: torch.dtype, temperature: float) -> None:
    """Inversion: id i is drawn by the uniforms between the oracle's sums before and after it, in
    float64; the ends are met to 1e-6, of 24 bits of an exponential."""
    torch.manual_seed(0)
    logits = (4 * torch.randn(1, 2000)).to(dtype)
    probs = torch.softmax(logits[0].double() / temperature, dim=-1).numpy()
    ends = np.cumsum(probs)
    likely = np.flatnonzero(probs > 1e-5)
    inside = [end - side for i, end in zip(likely, ends[likely], strict=True)
              for side in (probs[i] - 1e-6, 1e-6)]  # fmt: skip
    assert drawn(logits, temperature, *inside) == np.repeat(likely, 2).tolist()


def test_frequencies_over_many_seeds() -> None:
    """10,000 draws of four ids; chi-square with 3 degrees of freedom is below 16.3 in 99.9%."""
    logits = torch.tensor([0.1, 0.2, 0.3, 0.4]).log().expand(10_000, 4)
    found = choose(logits, 1.0, first(range(10_000)))
    expected = torch.tensor([1000.0, 2000, 3000, 4000])
    assert ((found.bincount(minlength=4) - expected) ** 2 / expected).sum() < 16.3


@given(
    st.lists(st.sampled_from([-1e30, -200.0, 0.0, 3.0]), max_size=40).map(lambda v: [*v, 1.0, *v]),
    st.sampled_from([0.0, 0.5, LAST]),
)
def test_what_has_no_probability_is_never_drawn(values: list[float], uniform: float) -> None:
    (found,) = drawn(torch.tensor([values]), 1.0, uniform)
    assert values[found] > max(values) - 100


@pytest.mark.parametrize("vocabulary", [1, 3, 151_936, 262_144])
def test_the_largest_uniform_draws_the_last_id(vocabulary: int) -> None:
    assert drawn(torch.zeros(1, vocabulary), 1.0, 0.0, LAST) == [0, vocabulary - 1]


def test_the_last_ids_without_probability_are_left_out() -> None:
    logits = torch.zeros(1, 5000)
    logits[:, 4000:] = -torch.inf
    assert drawn(logits, 1.0, LAST) == [3999]


@pytest.mark.parametrize("temperature", [1e-30, 1e30])
def test_temperatures_at_either_end(temperature: float) -> None:
    """Cold draws are greedy, hot ones know no difference between ids."""
    logits = torch.tensor([[0.0, 90.0, 80.0, -90.0]])
    expected = [1, 1] if temperature < 1 else [0, 3]
    assert drawn(logits, temperature, 0.1, 0.9) == expected


def test_a_row_draws_the_same_in_any_company() -> None:
    torch.manual_seed(1)
    logits = torch.randn(7, 5000)
    together = choose(logits, 1.0, first(range(7))).tolist()
    alone = [choose(logits[i : i + 1], 1.0, first(range(i, i + 1))).item() for i in range(7)]
    assert together == alone


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_not_finite_give_no_id(temperature: float) -> None:
    logits = torch.tensor([[0.0, torch.nan], [0.0, torch.inf], [0.0, 99.0]])
    assert choose(logits, temperature, first(range(3))).tolist() == [UNSOUND, UNSOUND, 1]


def test_numbers_are_each_generators_own_in_turn() -> None:
    """Two at once and then one are the first three: looks of the host do not change the draws."""
    generators = [Random(5), Random(6)]
    rows = [
        *uniforms(generators, 2, torch.device("cpu")),
        *uniforms(generators, 1, torch.device("cpu")),
    ]
    for column, generator in enumerate([Random(5), Random(6)]):
        assert [row[column].item() for row in rows] == [generator.random() for _ in range(3)]
