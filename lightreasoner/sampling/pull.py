"""How far a sample set pulls the expert: what its labels would change, before anything is tuned.

    pull = sum over samples of KL(v_C || pi_E on the support), nats
         = sum over samples, over a in A, of v_C(a) ( log v_C(a) - log pi_E(a) + log pi_E(A) )

pi_E(A) is the sum of pi_E over the support A. The loss (eq. 37) has pi_E over all tokens, and so
log pi_E(A) less: that part pulls all of the support up alike, and alone is left of a label of one
token, which says what the expert would have written anyway. The pull is what the contrast adds.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.integer[Any]]

LEAST = 5.0
PER_SAMPLE = 0.05
"""Nats, in sum and per sample, below which a set is warned of. In the micro-world 1.4 in sum
changed nothing, and 0.001 to 0.023 per sample did harm where 0.074 brought the gain
(docs/micro-world.md)."""


def warning(pull: float | None, samples: int) -> str | None:
    """What to think of a set that pulls too little; None where it does not, or nothing is known."""
    if pull is None or pull >= max(LEAST, PER_SAMPLE * samples):
        return None
    return (
        f"the labels teach next to nothing: their pull is {pull:.3g} nats over {samples:,} "
        f"samples, and should be at least {LEAST:g} and {PER_SAMPLE} per sample; take another "
        "amateur (`lightreasoner pair`)"
    )


def divergences(weights: Floats, expert_log_probs: Floats, offsets: Ints) -> Floats:
    """KL(v_C || pi_E renormalised) of each label (labels,), nats, float64.

    Label i holds entries offsets[i]:offsets[i + 1] of v_C and log pi_E; none is empty.
    """
    expert, starts = expert_log_probs.astype(np.float64), offsets[:-1]
    top = np.repeat(np.maximum.reduceat(expert, starts), np.diff(offsets))
    mass = np.add.reduceat(np.exp(expert - top), starts)
    expert = expert - top - np.repeat(np.log(mass), np.diff(offsets))
    taught = np.where(weights > 0, weights, 1)  # 0 log 0 = 0
    return np.add.reduceat(weights * (np.log(taught) - expert), starts)
