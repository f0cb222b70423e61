"""The contrast between expert and amateur: which steps teach, and what they teach.

Notation of the paper (arXiv 2510.07962, section 2) and of this project:

    pi_E(. | s_t)   expert_log_probs, natural logarithms, full vocabulary
    pi_A(. | s_t)   amateur_log_probs, the same vocabulary
    s_t             prefix: the prompt and the trajectory's tokens before step t
    alpha           plausibility threshold: the support is pi_E >= alpha max pi_E (eq. 34)
    beta            KL threshold, nats: a step is kept if KL(pi_E || pi_A) > beta (eq. 35)
    v_C             soft label: softmax over the support of log pi_E - log pi_A
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.integer]


def shared_log_probs(logits: Tensor, shared_ids: Tensor) -> Tensor:
    """Log-probabilities (steps, shared) over the shared ids alone, renormalised, float32 or wider.

    `logits` is (steps, vocab); `shared_ids` (shared,) are the ids that mean the same token to both
    models, so rows beyond the tokenizer and differing special tokens do not count.
    """
    logits = logits if logits.dtype == torch.float64 else logits.float()
    if len(shared_ids) != logits.shape[-1]:
        logits = logits.index_select(-1, shared_ids)
    return torch.log_softmax(logits, dim=-1)


def kl_divergence(expert_log_probs: Tensor, amateur_log_probs: Tensor) -> Tensor:
    """KL(expert || amateur) of each step (steps,), nats, over the full vocabulary; never below
    0."""
    ratios = expert_log_probs - amateur_log_probs
    return torch.linalg.vecdot(expert_log_probs.exp(), ratios).clamp(min=0)


def entropy(log_probs: Tensor) -> Tensor:
    """Entropy of each step (steps,), nats."""
    return -torch.linalg.vecdot(log_probs.exp(), log_probs)


def plausible(expert_log_probs: Tensor, alpha: float) -> Tensor:
    """Mask (steps, vocab) of the tokens with pi_E >= alpha max pi_E (eq. 34)."""
    top = expert_log_probs.amax(dim=-1, keepdim=True)
    return expert_log_probs >= top + float(np.log(alpha))


def soft_labels(
    expert_log_probs: Floats, amateur_log_probs: Floats, offsets: Ints, alpha: float
) -> tuple[npt.NDArray[np.bool_], Floats]:
    """v_C of every step at once, from flat arrays: step i holds tokens offsets[i]:offsets[i + 1].

    Each step has at least one token, its most likely one among them. Returns the support's mask
    over the flat tokens, and the weights of the tokens on it: softmax of log pi_E - log pi_A,
    float64, summing to 1 for each step (section 2.3.2).
    """
    step = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    top = np.maximum.reduceat(expert_log_probs, offsets[:-1])
    on_support = expert_log_probs >= top[step] + np.log(alpha)
    step = step[on_support]
    score = (expert_log_probs.astype(np.float64) - amateur_log_probs)[on_support]
    starts = np.searchsorted(step, np.arange(len(offsets) - 1))
    weights = np.exp(score - np.maximum.reduceat(score, starts)[step])
    return on_support, weights / np.add.reduceat(weights, starts)[step]
