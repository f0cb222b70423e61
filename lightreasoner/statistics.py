"""What can be said of two models from the same problems: intervals and a paired test."""

from scipy.stats import binomtest

CONFIDENCE = 0.95


def wilson_interval(correct: int, n: int) -> tuple[float, float]:
    """Wilson's 95% interval of an accuracy, as fractions in [0, 1]; `n` >= 1 problems.

    It is the interval that inverts the score test (Wilson 1927), so it stays within [0, 1] and
    keeps its width at 0 and at n correct.
    """
    interval = binomtest(correct, n).proportion_ci(CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)


def mcnemar_p(gained: int, lost: int) -> float:
    """Two-sided p of McNemar's exact test: under no effect, gained ~ Binomial(gained + lost, 1/2).

    `gained` problems turned from wrong to right, `lost` from right to wrong; problems that both
    models got right or wrong carry no weight (McNemar 1947). 1 where none changed.
    """
    changed = gained + lost
    return float(binomtest(gained, changed, 0.5).pvalue) if changed else 1.0
