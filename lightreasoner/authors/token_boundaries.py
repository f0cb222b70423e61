"""Where the tokens of a text end: the ids of a response, found again from its decoded prefixes.

The authors' files hold a sample's prefix as text and its length in tokens (`step`). The ids of a
response are grown along its rows, the lowest step first. A prefix, tokenised alone, gives the new
ids if

    1. it has exactly `step` tokens;
    2. they decode to the prefix again, and no character of it was cut in two (U+FFFD);
    3. they begin with the ids found so far;
    4. their first tokens decode to the prefix of every earlier row, as many as its step says.

Then a row's boundary is recovered if the first `step` of the ids decode to its prefix. So a prefix
that cannot be read by itself (it ends within a character, or in blanks that the tokenizer joins
when nothing follows) can still be read from a later row of the response.

Why. The ids that the expert wrote have the text and the count of every row: 1, 2 and 4 only ask
for what is true of them, and so refuse no row whose text the tokenizer spells as the expert did.
Where the expert spelled otherwise, the count is off from that place on, but for the rare other
spelling of equal length; 4 notices it at any row in between. Condition 3 decides between two rows
that contradict each other for the earlier one: in a byte-pair tokenizer's spelling no merge crosses
the end of a token, so that a later row that is right agrees with every earlier one. What remains is
a spelling that has the text and count of every row in the file; nothing there tells it from the
expert's. A file with a row for every step leaves no room for one.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CUT_CHARACTER = "\ufffd"
OTHER_PREFIX = (
    "its prefix does not agree with that of an earlier step (of another response, maybe: the "
    "format has one per question)"
)


def recover(
    rows: list[tuple[int, str]], tokenizer: "PreTrainedTokenizerBase"
) -> tuple[list[int], list[str | None]]:
    """The ids of one response from its rows (step, prefix), at least one.

    The second result is None for a row whose prefix is the first `step` of these ids, else the
    reason why its boundary is not recovered.
    """
    spellings = tokenizer([prefix for _, prefix in rows], add_special_tokens=False)["input_ids"]
    ids: list[int] = []
    unexplained: list[tuple[int, str]] = []
    for (step, prefix), spelling in sorted(zip(rows, spellings, strict=True)):
        unexplained.append((step, prefix))
        if (
            _fault(step, prefix, spelling, tokenizer) is None
            and spelling[: len(ids)] == ids
            and all(tokenizer.decode(spelling[:at]) == text for at, text in unexplained)
        ):
            ids, unexplained = spelling, []
    reasons: list[str | None] = []
    for (step, prefix), spelling in zip(rows, spellings, strict=True):
        if step <= len(ids) and tokenizer.decode(ids[:step]) == prefix:
            reasons.append(None)
        else:
            fault = _fault(step, prefix, spelling, tokenizer)
            reasons.append(fault or OTHER_PREFIX)
    return ids, reasons


def _fault(
    step: int, prefix: str, spelling: list[int], tokenizer: "PreTrainedTokenizerBase"
) -> str | None:
    """What is wrong with a prefix by itself."""
    if CUT_CHARACTER in prefix:
        return "its prefix ends within a character"
    if len(spelling) != step:
        return f"its prefix has {len(spelling)} tokens when tokenised again, not {step}"
    if tokenizer.decode(spelling) != prefix:
        return "its prefix changes when tokenised and decoded again"
    return None
