r"""The verdict that the official Qwen2.5-Math toolkit (commit a45202b) gives to a response.

It finds the answer wherever it may stand (a box, "the answer is", the last number), normalises it
and the gold answer, and compares generously: numbers to a relative 1e-4 and up to a factor 100,
formulas by algebra. It is here so that accuracies compare with published ones, not because it is
right; `lightreasoner/grading.py` is strict.

The toolkit gives a comparison 3 seconds and calls it wrong after that. Nothing here keeps time:
algebra on a model's text can take for ever, so call this in a process that can be killed.
"""

import re
from collections.abc import Mapping
from typing import Any

from lightreasoner.equivalence import CHOICES, is_equal, standalone_choice
from lightreasoner.normalisation import normalise

UNITS_KEPT = "minerva_math"
"""The benchmark whose answers keep their units."""

_STOP_WORDS = ("</s>", "<|im_end|>", "<|endoftext|>")
_TRIGGERS = ("choice is", "answer is")
_LAST_NUMBER = re.compile(r"-?\d*\.?\d+")


def is_correct(response: str, benchmark: str, gold: str) -> bool:
    """The verdict on a response; `gold` is normalised already (see `gold_answer`)."""
    return is_equal(prediction(response, benchmark, gold), gold)


def gold_answer(row: Mapping[str, Any], benchmark: str) -> str:
    """The normalised gold answer of a row in the toolkit's own layout."""
    match benchmark:
        case "math" | "minerva_math":
            return extract(row["solution"], benchmark)
        case "gsm8k":
            answer = row["answer"].split("####")[-1]
        case "svamp":
            answer = str(row["Answer"])
        case "asdiv":
            answer = re.sub(r"\(.*?\)", "", row["answer"])
        case "olympiadbench":
            answer = row["final_answer"][0].strip("$")
        case "mmlu_stem":
            answer = CHOICES[row["answer"]]
        case _:
            raise ValueError(f"no gold rule for benchmark {benchmark!r}")
    return normalise(normalise(answer))


def prediction(response: str, benchmark: str, gold: str) -> str | None:
    """The answer of a response, as it is compared with its gold answer; None if there is none.

    The gold answer has a say: for one that is a letter, or letters, the toolkit looks for letters.
    """
    for stop_word in _STOP_WORDS:
        response = response.split(stop_word)[0]
    response = response.strip()
    answer = None
    if response and response != "error":
        answer = normalise(extract(response, benchmark), keep_units=benchmark == UNITS_KEPT)
    if gold in CHOICES:
        return answer if answer in CHOICES else choice(response)
    if answer and not set(gold) - set(CHOICES):
        return "".join(letter for letter in answer if letter in CHOICES)
    return answer


def extract(response: str, benchmark: str) -> str:
    """The answer in a response, normalised once (but for a choice); "" if there is none."""
    response = response.replace("ки", "")
    if benchmark == "mmlu_stem":
        return choice(response)
    answer = re.sub(r"\n\s*", "", _answer_text(response))
    answer = answer.removeprefix(":").removesuffix(".").removesuffix("/")
    return normalise(answer, keep_units=benchmark == UNITS_KEPT)


def choice(response: str) -> str:
    """The letter that a response chooses, A to E; its text in short if there is none."""
    text = response.strip("\n")
    if any(text.count(trigger) > 1 for trigger in _TRIGGERS):
        text = text.split("\n\n")[0]
    *before, text = re.split("|".join(_TRIGGERS), text)
    return standalone_choice(text, first=bool(before))


def _answer_text(response: str) -> str:
    """The part of a response that holds its answer: the first rule that applies."""
    if "final answer is $" in response and "$. I hope" in response:
        return response.split("final answer is $", 1)[1].split("$. I hope", 1)[0].strip()
    if "boxed" in response:
        return _boxed(response.rpartition("boxed")[2])
    for trigger in ("he answer is", "final answer is"):
        if trigger in response:
            return response.rpartition(trigger)[2].strip()
    if "答案是" in response:
        return response.split("答案是")[1].strip().split("\n\n")[0].strip()
    numbers = _LAST_NUMBER.findall(response.replace(",", ""))
    return numbers[-1] if numbers else ""


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


def gold(answer: str, benchmark: str) -> str:
    """Temporary."""
    once = benchmark in ("math", "math500", "minerva_math")
    first = normalise(answer, keep_units=benchmark == UNITS_KEPT)
    return first if once else normalise(first)
