r"""Benchmarks: how a row of the Qwen2.5-Math toolkit's files becomes a question and a gold answer.

The question is the toolkit's to the byte. The gold answer is bare, not normalised yet; where the
toolkit extracts it from a solution (math, minerva_math), it is what its rules find there, and
elsewhere as golds.py reads it. gsm8k is not here: its rows are {question, answer} already.

All raise ValueError, which says what is wrong with the row.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from lightreasoner.data import golds
from lightreasoner.data.golds import Gold
from lightreasoner.data.user_files import Row
from lightreasoner.qwen_math.answers import gold
from lightreasoner.untrusted import shown

LETTERS = "ABCD"
_PARENTHESIS = re.compile(r"\([^)\n]*(\))?")
OF_BOTH = {"question", "answer", "solution"}
"""What plain rows may also hold."""


@dataclass(frozen=True)
class Benchmark:
    """How a benchmark's rows are read.

    `fields` must be there; `solution` names the one that holds a worked solution, if any does.
    `shots` demos precede the question.
    """

    name: str
    fields: tuple[str, ...]
    bare_question: Callable[[Row], str]
    bare_gold: Callable[[Row], Gold]
    solution: str | None = None
    shots: int = 0

    def question_and_gold(self, row: Row) -> tuple[str, Gold]:
        """The question and the bare gold answer.

        The question names the two choices where the normalised gold answer is one of the two.
        """
        found = self.bare_gold(row)
        question = self.bare_question(row) + _choices(gold(found.answer, self.name))
        return question.strip(), found

    def is_layout_of(self, rows: Iterable[Row]) -> bool:
        """Whether rows are in this benchmark's own layout, not plain: {question} and maybe more.

        A solution tells nothing: plain rows may have one.
        """
        names = {name for row in rows for name in row}
        return "question" not in names or bool(names & (set(self.fields) - OF_BOTH))


def _choices(normalised: str) -> str:
    """` (Yes or No)` or the like, if the normalised gold answer is one of the two."""
    if normalised.lower() in ("true", "false"):
        return " (True or False)"
    return " (Yes or No)" if normalised.lower() in ("yes", "no") else ""


def _solution_gold(row: Row) -> Gold:
    return golds.read_solution(str(row["solution"]))


def _svamp_question(row: Row) -> str:
    body = str(row["Body"]).strip()
    return f"{body}{'' if body.endswith('.') else '.'} {str(row['Question']).strip()}"


def _asdiv_question(row: Row) -> str:
    return f"{str(row['body']).strip()} {str(row['question']).strip()}"


def _asdiv_gold(row: Row) -> Gold:
    """`9 (apples)` is 9: what the toolkit's `\\(.*?\\)` matches goes, in one pass."""
    bare = _PARENTHESIS.sub(lambda found: "" if found[1] else found[0], str(row["answer"]))
    return golds.parse_gold(bare)


def _olympiad_gold(row: Row) -> Gold:
    answers = row["final_answer"]
    if not isinstance(answers, list) or not answers or not str(answers[0]).strip(" $"):
        raise ValueError(
            f"final_answer must be a list that begins with an answer, got {shown(answers)}"
        )
    return golds.parse_gold(str(answers[0]).strip("$"))


def _mmlu_question(row: Row) -> str:
    choices = row["choices"]
    if not isinstance(choices, list) or len(choices) != len(LETTERS):
        raise ValueError(f"choices must be a list of {len(LETTERS)}, got {shown(choices)}")
    lettered = [
        f"({letter}) {str(choice).strip()}" for letter, choice in zip(LETTERS, choices, strict=True)
    ]
    return f"{str(row['question']).strip()}\nAnswer Choices: {' '.join(lettered)}"


def _mmlu_gold(row: Row) -> Gold:
    answer = row["answer"]
    if type(answer) is not int or not 0 <= answer < len(LETTERS):
        raise ValueError(f"answer must be the index of a choice, 0 to 3, got {shown(answer)}")
    return Gold(LETTERS[answer], "given")


def _problem(row: Row) -> str:
    return str(row["problem"])


def _solved(name: str) -> Benchmark:
    """A benchmark whose gold answers are in worked solutions."""
    return Benchmark(name, ("problem", "solution"), _problem, _solution_gold, solution="solution")


BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        _solved("math"),
        _solved("math500"),
        _solved("minerva_math"),
        Benchmark(
            "svamp",
            ("Body", "Question", "Answer"),
            _svamp_question,
            lambda row: golds.parse_gold(str(row["Answer"])),
        ),
        Benchmark("asdiv", ("body", "question", "answer"), _asdiv_question, _asdiv_gold),
        Benchmark(
            "olympiadbench",
            ("question", "final_answer"),
            lambda row: str(row["question"]),
            _olympiad_gold,
        ),
        Benchmark(
            "mmlu_stem", ("question", "choices", "answer"), _mmlu_question, _mmlu_gold, shots=5
        ),
    )
}
