r"""Where an answer stands in a text, and gold answers, as the Qwen2.5-Math toolkit has them.

The toolkit's commit is a45202b. A gold answer comes in two forms: bare, as `Problem.answer` holds
it (what the source gives, or what stands in its worked solution), and normalised, as the official
verdict compares it. This module imports no algebra, so that reading problems does not depend on it.
"""

import functools
import re

from lightreasoner.qwen_math.normalise import normalise

UNITS_KEPT = "minerva_math"
"""The benchmark whose answers keep their units."""

SOLUTION_BENCHMARKS = ("math", "math500", "minerva_math")
"""The benchmarks whose gold answers are extracted from worked solutions."""

_LAST_NUMBER = re.compile(r"-?\d*\.?\d+")


def bare_answer(text: str) -> str:
    """The answer in a response or a solution, not normalised; "" if there is none."""
    return found_answer(text)[0]


def found_answer(text: str) -> tuple[str, str]:
    """As `bare_answer`, and where it stood: in a box, behind a label, or the last number."""
    part, where = _answer_text(text.replace("ки", ""))
    answer = re.sub(r"\n\s*", "", part)
    return answer.removeprefix(":").removesuffix(".").removesuffix("/").strip(), where


@functools.lru_cache(maxsize=2**16)
def gold(answer: str, benchmark: str) -> str:
    """The normalised form of a bare gold answer; "" if nothing of it remains.

    The toolkit normalises twice what it reads from a field of the record (of any benchmark but
    those named here), and once what it extracts from a solution. Twice is not the same as once.
    """
    if benchmark in SOLUTION_BENCHMARKS:
        return normalise(answer, keep_units=benchmark == UNITS_KEPT)
    return normalise(normalise(answer))


def _answer_text(response: str) -> tuple[str, str]:
    """The part of a response that holds its answer, by the first rule that applies."""
    if "final answer is $" in response and "$. I hope" in response:
        part = response.split("final answer is $", 1)[1].split("$. I hope", 1)[0]
        return part.strip(), "label"
    if "boxed" in response:
        return _boxed(response.rpartition("boxed")[2]), "box"
    for trigger in ("he answer is", "final answer is"):
        if trigger in response:
            return response.rpartition(trigger)[2].strip(), "label"
    if "答案是" in response:
        return response.split("答案是")[1].strip().split("\n\n")[0].strip(), "label"
    numbers = _LAST_NUMBER.findall(response.replace(",", ""))
    return numbers[-1] if numbers else "", "last number"


def _boxed(text: str) -> str:
    """What the text after "boxed" has in its braces, or before its first dollar sign."""
    if not text.startswith("{"):
        return text.split("$")[0].strip()
    depth = 0
    for brace in re.finditer(r"[{}]", text):
        depth += 1 if brace.group() == "{" else -1
        if depth == 0:
            return text[1 : brace.start()]
    return text[1:]
