import itertools
import math
from collections import Counter
from collections.abc import Callable
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from lightreasoner.statistics import (
    Array,
    Interval,
    accuracy_interval,
    bootstrap_difference,
    bootstrap_interval,
    bootstrap_mean_difference,
    detectable_gain,
    holm,
    level_of_try,
    maj_at_n,
    mcnemar_p,
    pass_at_k,
    problems_needed,
    sign_p,
    wilson_interval,
)

SHARES = st.lists(st.sampled_from([0, 0.25, 0.5, 0.75, 1.0]), min_size=1, max_size=40)


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    [
        # Newcombe (1998), Statistics in Medicine 17, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
        # by hand, z^2 = 3.8415: 0 of 10 ends at z^2 / (n + z^2) = 3.8415 / 13.8415
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        # 5 of 10: 1/2 -+ z sqrt(1/40 + z^2/400) / (1 + z^2/10) = 1/2 -+ 0.2634
        (5, 10, 0.2366, 0.7634),
    ],
)
def test_wilson_interval_of_worked_examples(correct: int, n: int, low: float, high: float) -> None:
    assert wilson_interval(correct, n) == pytest.approx((low, high), abs=5e-5)


def test_wilson_interval_is_scipys_to_the_bit() -> None:
    for n in (1, 2, 7, 100, 263, 500, 1319):
        for correct in range(n + 1):
            found = binomtest(correct, n).proportion_ci(0.95, method="wilson")
            assert wilson_interval(correct, n) == (found.low, found.high)


@pytest.mark.parametrize(("correct", "n"), [(-1, 5), (6, 5), (0, 0)])
def test_wilson_interval_refuses_impossible_counts(correct: int, n: int) -> None:
    with pytest.raises(ValueError, match="correct must be from 0 to n"):
        wilson_interval(correct, n)


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_holds_the_accuracy_and_mirrors(counts: tuple[int, int]) -> None:
    correct, n = counts
    low, high = wilson_interval(correct, n)
    assert 0 <= low <= correct / n + 1e-12
    assert correct / n - 1e-12 <= high <= 1
    assert low < high
    mirrored = wilson_interval(n - correct, n)
    assert (1 - mirrored[1], 1 - mirrored[0]) == pytest.approx((low, high), abs=1e-12)


@pytest.mark.parametrize(
    ("gained", "lost", "p"),
    [
        # nothing changed, or as much either way
        (0, 0, 1.0),
        (3, 3, 1.0),
        # by hand: 2 (1 + 10) / 2^10, 2 / 2^5, 2 (1 + 8 + 28) / 2^8
        (1, 9, 22 / 1024),
        (0, 5, 1 / 16),
        (6, 2, 74 / 256),
    ],
)
def test_mcnemar_of_worked_examples(gained: int, lost: int, p: float) -> None:
    assert mcnemar_p(gained, lost) == pytest.approx(p)


@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_is_the_doubled_smaller_tail_and_symmetric(gained: int, lost: int) -> None:
    p = mcnemar_p(gained, lost)
    assert 0 < p <= 1
    assert p == pytest.approx(mcnemar_p(lost, gained))
    changed = gained + lost
    tail = sum(math.comb(changed, k) for k in range(min(gained, lost) + 1)) / 2**changed
    assert p == pytest.approx(min(1.0, 2 * tail))


def exact_interval(values: list[float]) -> Interval:
    """All n^n resamples: the 2.5% and 97.5% quantiles of their means."""
    means = np.array([np.mean(drawn) for drawn in itertools.product(values, repeat=len(values))])
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


@pytest.mark.parametrize(
    "values", [[0, 1, 1, 1, 0, 1], [0, 0.25, 1, 1, 0.5, 0.75], [0.5, 0, 0, 0, 0, 0]]
)
def test_the_bootstrap_draws_what_all_resamples_hold(values: list[float]) -> None:
    """6^6 = 46,656 resamples; 10^5 draws place a quantile to within one step of 1/24."""
    found = bootstrap_interval(np.array(values), draws=100_000)
    assert found == pytest.approx(exact_interval(values), abs=1 / 24)


def test_the_bootstrap_of_halves_by_hand() -> None:
    """Values 0 and 1: means 0, 1/2, 1 with chances 1/4, 1/2, 1/4, so both tails reach the ends.

    Of 100 problems half right, the mean's deviation is sqrt(0.25 / 100) = 0.05: 0.5 -+ 0.098.
    """
    assert bootstrap_interval(np.array([0.0, 1.0])) == (0.0, 1.0)
    halves = np.repeat([0.0, 1.0], 50)
    assert bootstrap_interval(halves) == pytest.approx((0.402, 0.598), abs=0.01)


def test_equal_values_claim_no_certainty() -> None:
    """z^2 / (n + z^2) of 10 problems is 3.8415 / 13.8415 = 0.2775, the share that may be unseen."""
    right, half = np.ones(10), np.full(10, 0.5)
    assert bootstrap_interval(right) == pytest.approx(wilson_interval(10, 10))
    assert bootstrap_interval(0 * right) == pytest.approx(wilson_interval(0, 10))
    assert bootstrap_interval(half) == pytest.approx((0.5 - 0.1388, 0.5 + 0.1388), abs=5e-5)
    assert bootstrap_difference(half, half) == pytest.approx((-0.2775, 0.2775), abs=5e-5)
    gain = bootstrap_difference(0 * right, right)
    assert gain == pytest.approx((1 - 2 * 0.2775, 1), abs=1e-4)
    two_sets = bootstrap_mean_difference([(half, half), (0 * right, right)])
    assert two_sets == pytest.approx((0.5 - 1.5 * 0.2775, 0.5 + 0.5 * 0.2775), abs=1e-4)


@given(SHARES, st.randoms(use_true_random=False), st.integers(0, 9))
def test_the_bootstrap_holds_the_mean_and_ignores_the_order(
    values: list[float], random: Random, seed: int
) -> None:
    per_problem = np.array(values)
    low, high = found = bootstrap_interval(per_problem, seed, draws=2000)
    assert 0 <= low <= high <= 1
    assert low - 1e-9 <= per_problem.mean() <= high + 1e-9
    shuffled = values[:]
    random.shuffle(shuffled)
    assert bootstrap_interval(np.array(shuffled), seed, draws=2000) == found


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_the_paired_bootstrap_mirrors_and_knows_one_models_own(
    pairs: list[tuple[bool, bool]],
) -> None:
    """Against a base that is always wrong the difference is the accuracy itself."""
    base, tuned = (np.array(side, dtype=float) for side in zip(*pairs, strict=True))
    low, high = bootstrap_difference(base, tuned)
    mirrored = bootstrap_difference(tuned, base)
    # the two draw other numbers; a quantile of 10,000 draws lies within two steps of 1/n
    assert (-mirrored[1], -mirrored[0]) == pytest.approx((low, high), abs=2.01 / len(pairs))
    if 0 < tuned.sum() < len(tuned):
        assert bootstrap_difference(0 * tuned, tuned) == bootstrap_interval(tuned)


def test_pairing_narrows_the_difference() -> None:
    """Of 400 problems 20 are gained and none lost, whatever the 200 that both get right.

    Paired, the deviation is sqrt(0.05 * 0.95 / 400) = 0.0109: 0.05 -+ 0.0214, against
    1.96 sqrt(2 * 0.25 / 400) = 0.069 if the models had answered other problems.
    """
    base = np.repeat([1.0, 0.0], 200)
    tuned = np.repeat([1.0, 1.0, 0.0], [200, 20, 180])
    low, high = bootstrap_difference(base, tuned)
    assert (low, high) == pytest.approx((0.05 - 0.0214, 0.05 + 0.0214), abs=0.003)
    with pytest.raises(ValueError, match="broadcast"):
        bootstrap_difference(base, tuned[:-1])


def test_the_mean_over_sets_weighs_sets_and_not_problems() -> None:
    """Set 1: 100 problems, 50 gained; set 2: 400, none. The mean is 1/4, not 50 / 500.

    Its deviation is half of set 1's sqrt(0.25 / 100) = 0.05: 0.25 -+ 0.049. Set 2, unchanged, adds
    half of Wilson's upper end for 0 of 400, 0.0095: 0.25 -+ 0.054.
    """
    first = np.zeros(100), np.repeat([0.0, 1.0], 50)
    second = np.ones(400), np.ones(400)
    found = bootstrap_mean_difference([first, second])
    assert found == pytest.approx((0.25 - 0.054, 0.25 + 0.054), abs=0.003)
    assert bootstrap_mean_difference([first]) == bootstrap_difference(*first)


def coverage(
    draw: Callable[[np.random.Generator], Array],
    interval: Callable[[Array], Interval],
    truth: float,
    simulations: int = 500,
) -> float:
    """The share of simulated evaluations whose interval holds the truth."""
    rng = np.random.default_rng(0)
    found = [interval(draw(rng)) for _ in range(simulations)]
    return sum(low <= truth <= high for low, high in found) / simulations


def test_the_bootstrap_covers_a_known_truth() -> None:
    """95% of 500 simulations come with a deviation of 1%; 92% to 98% is three of them.

    An interval over responses as if each were a problem of its own is the error to reject: with
    equal chances within a problem of 0 or 1 it is half as wide, and covers two times in three.
    """

    def shares(rng: np.random.Generator) -> Array:
        return rng.binomial(4, rng.random(200)) / 4

    def responses(rng: np.random.Generator) -> Array:
        return np.repeat(rng.random(200) < 0.5, 4).astype(float)

    found = coverage(shares, lambda values: bootstrap_interval(values, draws=1000), 0.5)
    assert 0.92 <= found <= 0.98
    naive = coverage(responses, lambda values: bootstrap_interval(values, draws=1000), 0.5)
    assert naive < 0.8


def test_the_paired_bootstrap_covers_a_known_truth() -> None:
    """20% of 200 problems gained and 10% lost: the true difference is 0.1."""

    def changes(rng: np.random.Generator) -> Array:
        return rng.choice([-1.0, 0.0, 1.0], 200, p=[0.1, 0.7, 0.2])

    def interval(change: Array) -> Interval:
        return bootstrap_difference(change < 0, change > 0, draws=1000)

    assert 0.92 <= coverage(changes, interval, 0.1) <= 0.98


def test_wilson_where_problems_are_right_or_wrong_else_the_bootstrap() -> None:
    right = np.repeat([1.0, 0.0], [81, 182])
    assert accuracy_interval(right) == wilson_interval(81, 263)
    assert accuracy_interval(right > 0) == wilson_interval(81, 263)
    halves = np.append(right, 0.5)
    assert accuracy_interval(halves) == bootstrap_interval(halves)


@given(st.integers(0, 60), st.integers(0, 60))
def test_sign_p_is_half_of_mcnemars_where_more_are_gained(gained: int, lost: int) -> None:
    one, two = sign_p(gained, lost), mcnemar_p(gained, lost)
    assert one == pytest.approx(
        binomtest(gained, gained + lost, 0.5, "greater").pvalue if gained + lost else 1.0
    )
    if gained > lost:
        assert one == pytest.approx(two / 2)


def test_sign_p_of_thousands_is_exact() -> None:
    assert sign_p(3_100, 2_900) == pytest.approx(
        binomtest(3_100, 6_000, 0.5, "greater").pvalue, rel=1e-9
    )
    assert sign_p(0, 0) == 1.0


def test_the_levels_of_all_tries_sum_to_one_sided_five_percent_of_two() -> None:
    levels = [level_of_try(k) for k in range(1, 20_001)]
    assert sum(levels) < 0.025
    assert sum(levels) == pytest.approx(0.025, abs=1e-6)
    assert levels[1] == pytest.approx(levels[0] / 4)


def exact_power(n: int, gained: float, lost: float) -> float:
    """The chance that McNemar's exact two-sided p is at most 5%, over all numbers of changes."""
    share = gained / (gained + lost)
    total = 0.0
    for changed, weight in enumerate(binom.pmf(range(n + 1), n, gained + lost)):
        if weight > 1e-9:
            counts = np.arange(changed + 1)
            tails = np.minimum(binom.cdf(counts, changed, 0.5), binom.sf(counts - 1, changed, 0.5))
            total += weight * binom.pmf(counts, changed, share)[2 * tails <= 0.05].sum()
    return total


@pytest.mark.parametrize(("gain", "changed"), [(0.05, 0.2), (0.1, 0.2), (0.03, 0.05), (0.1, 0.4)])
@pytest.mark.parametrize("power", [0.8, 0.9])
def test_the_problems_needed_have_the_power(gain: float, changed: float, power: float) -> None:
    """The exact test has up to 6 points less than the normal approximation says, never more."""
    n = problems_needed(gain, changed, power)
    found = exact_power(n, (changed + gain) / 2, (changed - gain) / 2)
    assert power - 0.06 < found < power + 0.01


@given(st.integers(5, 100_000), st.floats(0.01, 1), st.sampled_from([0.8, 0.9]))
def test_the_detectable_gain_is_the_one_whose_problems_are_needed(
    n: int, changed: float, power: float
) -> None:
    gain = detectable_gain(n, changed, power)
    if gain is None:
        assert problems_needed(changed, changed, power) > n
    else:
        assert abs(problems_needed(gain, changed, power) - n) <= 1


def test_gains_that_known_sizes_show() -> None:
    """Worked: 500 of which 20% change, z 1.96 and 0.84: 5.6 points; nothing of no change."""
    assert detectable_gain(500) == pytest.approx(0.0559, abs=5e-5)
    assert detectable_gain(272) == pytest.approx(0.0756, abs=5e-5)
    assert detectable_gain(500, 0.0) is None
    for gain, changed in ((0.0, 0.2), (0.3, 0.2), (-0.1, 0.2), (0.1, 1.1), (math.nan, 0.2)):
        with pytest.raises(ValueError, match="must be over 0"):
            problems_needed(gain, changed)


def test_holm_by_hand() -> None:
    """Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1: 0.02, 0.03, 0.06, 0.04, which 0.06 lifts."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    # ties: 3 * 0.02, then 2 * 0.02 lifted; 0.5 alone
    assert holm([0.02, 0.5, 0.02]) == pytest.approx([0.06, 0.5, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([0.03]) == [0.03]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=12), st.floats(0.001, 0.5))
def test_holm_rejects_what_the_step_down_procedure_rejects(p: list[float], level: float) -> None:
    """Holm's own statement: in order, reject while p_(i) <= level / (m - i + 1)."""
    adjusted = holm(p)
    rejected = set()
    for left, place in zip(
        range(len(p), 0, -1), sorted(range(len(p)), key=p.__getitem__), strict=True
    ):
        if p[place] * left > level:
            break
        rejected.add(place)
    assert rejected == {place for place, value in enumerate(adjusted) if value <= level}
    assert all(before <= after <= 1 for before, after in zip(p, adjusted, strict=True))
    assert all(after <= min(1, len(p) * before) for before, after in zip(p, adjusted, strict=True))


@given(
    st.integers(1, 8).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n)))
)
def test_pass_at_k_is_the_share_of_subsets_with_a_right_response(
    counts: tuple[int, int, int],
) -> None:
    n, correct, k = counts
    subsets = list(itertools.combinations(range(n), k))
    share = sum(min(subset) < correct for subset in subsets) / len(subsets)
    assert pass_at_k(n, correct, k) == pytest.approx(share, abs=1e-15)


def test_pass_at_k_by_hand() -> None:
    """Of 4 responses 2 right, k = 2: 1 - C(2, 2) / C(4, 2) = 5/6; the naive 1 - 1/4 is 3/4."""
    assert pass_at_k(4, 2, 2) == pytest.approx(5 / 6)
    assert pass_at_k(10, 3, 1) == 0.3
    assert pass_at_k(5, 0, 5) == 0
    assert pass_at_k(5, 1, 5) == 1
    # one right of 10,000: k / n, to the last digit
    assert pass_at_k(10_000, 1, 100) == 0.01


@pytest.mark.parametrize("counts", [(4, 2, 0), (4, 2, 5), (4, 5, 1), (4, -1, 1)])
def test_pass_at_k_of_impossible_counts(counts: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=r"pass@k needs 1 <= k <= n and 0 <= correct <= n, got k="):
        pass_at_k(*counts)


@pytest.mark.parametrize(
    ("answers", "right", "share"),
    [
        ("aab", "a", 1),
        ("aab", "b", 0),
        # a tie is shared, whoever came first
        ("ab", "b", 1 / 2),
        ("aabbc", "a", 1 / 2),
        ("abc", "c", 1 / 3),
        # a response without an answer (-) has no vote, and nobody's vote is wrong
        ("a---", "a", 1),
        ("--", "a", 0),
    ],
)
def test_the_majority_of_all_responses(answers: str, right: str, share: float) -> None:
    keys = [None if key == "-" else key for key in answers]
    assert maj_at_n(keys, [key == right for key in keys]) == pytest.approx(share)


def test_a_verdict_that_ran_out_of_time_is_its_answers_other_one() -> None:
    assert maj_at_n("aab", [True, False, False]) == 1


@given(
    st.lists(st.sampled_from(["a", "b", "c", None]), min_size=1, max_size=5),
    st.sets(st.sampled_from("abc")),
)
def test_the_majority_is_the_first_to_have_it_over_all_orders(
    keys: list[str | None], right: set[str]
) -> None:
    firsts = [
        next(iter(Counter(filter(None, order)).most_common(1)), (None, 0))[0]
        for order in itertools.permutations(keys)
    ]
    share = sum(first in right for first in firsts) / len(firsts)
    assert maj_at_n(keys, [key in right for key in keys]) == pytest.approx(share)


def test_gains_that_are_equal_but_for_rounding_are_not_certain() -> None:
    """2/3 - 1/3 and 1 - 2/3 differ in floating point, and are one gain of a third."""
    third = np.full(4, 1 / 3)
    base, tuned = np.array([1, 2, 1, 2]) / 3, np.array([2, 3, 2, 3]) / 3
    assert bootstrap_difference(base, tuned) == pytest.approx(
        bootstrap_difference(0 * third, third)
    )


def test_a_set_without_change_is_not_certain() -> None:
    """Its own interval, shared out over the sets, is added to the other's: (a + b) / 2."""
    same, base = np.zeros(5), np.zeros(300)
    tuned = (np.arange(300) < 50).astype(float)
    alone = bootstrap_difference(same, same)
    other = bootstrap_difference(base, tuned)
    low, high = bootstrap_mean_difference([(same, same), (base, tuned)])
    assert low == pytest.approx((alone[0] + other[0]) / 2, abs=0.01)
    assert high == pytest.approx((alone[1] + other[1]) / 2, abs=0.01)


def test_fewer_than_six_problems_show_nothing() -> None:
    """All five of five gained: the exact test's p is 1/16; six of six: 1/32."""
    assert mcnemar_p(5, 0) > 0.05 > mcnemar_p(6, 0)
    assert problems_needed(1.0, 1.0) == 6
    assert detectable_gain(5, 1.0) is None
    assert detectable_gain(6, 1.0) is not None
