r"""The verdict that the official Qwen2.5-Math toolkit (commit a45202b) gives to a response.

It finds the answer wherever it may stand (a box, "the answer is", the last number), normalises it
and the gold answer, and compares generously: numbers to a relative 1e-4 and up to a factor 100,
formulas by algebra. It is here so that accuracies compare with published ones, not because it is
right; that is what `lightreasoner/grading/strict/` decides.

The toolkit gives a comparison 3 seconds and calls it wrong after that. Nothing here keeps time:
algebra on a model's text can take forever, so call this in a process that can be killed.
"""

import re

from lightreasoner.qwen_math.answers import UNITS_KEPT, bare_answer
from lightreasoner.qwen_math.answers import gold as gold
from lightreasoner.qwen_math.equivalence import CHOICES, standalone_choice
from lightreasoner.qwen_math.equivalence import is_equal as is_equal
from lightreasoner.qwen_math.equivalence import is_equal_at_sight as is_equal_at_sight
from lightreasoner.qwen_math.normalise import normalise

_STOP_WORDS = ("</s>", "<|im_end|>", "<|endoftext|>")
_TRIGGERS = ("choice is", "answer is")


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
    if benchmark == "mmlu_stem":
        return choice(response.replace("ки", ""))
    return normalise(bare_answer(response), keep_units=benchmark == UNITS_KEPT)


def choice(response: str) -> str:
    """The letter that a response chooses, A to E; its text in short if there is none."""
    text = response.strip("\n")
    if any(text.count(trigger) > 1 for trigger in _TRIGGERS):
        text = text.split("\n\n")[0]
    *before, text = re.split("|".join(_TRIGGERS), text)
    return standalone_choice(text, first=bool(before))
