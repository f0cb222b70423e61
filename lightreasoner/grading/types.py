"""What is graded, and what comes of it.

Each verdict is one of four outcomes:

    correct    the answer is the gold answer
    wrong      it is another one
    unparsed   the response gives no answer
    timeout    the limit of time or memory was reached, or grading failed (which is logged);
               counts as not correct
"""

from dataclasses import dataclass
from typing import Literal

from lightreasoner.data.problems import Problem

Outcome = Literal["correct", "wrong", "unparsed", "timeout"]
OUTCOMES: tuple[Outcome, ...] = ("correct", "wrong", "unparsed", "timeout")


@dataclass(frozen=True)
class Answer:
    """A response to a problem; `benchmark` names the set, whose rules apply.

    `begun` is what the prompt has begun of the response, such as a thought; the toolkit's verdict
    does not see it.
    """

    response: str
    problem: Problem
    benchmark: str
    begun: str = ""


@dataclass(frozen=True)
class Grade:
    """Both verdicts on a response, and what each of them took for its answer (None: nothing).

    `gold` and `pred` are in the toolkit's normal form, `extracted` is as written.
    """

    gold: str
    pred: str | None
    qwen: Outcome
    extracted: str | None
    strict: Outcome
