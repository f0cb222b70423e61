"""Whether a response takes back what it said."""

import re

WITHDRAWN_WITHIN = 120
"""An answer is withdrawn within this many characters behind it at most."""

TAKEN_BACK = re.compile(
    r"\b(?:wait|mistake|mistaken|wrong|incorrect|correcting|correction|corrected|misse[sd]|actually"
    r"|instead|however|recheck|re-check|double[- ]check|no,|not right|oops|sorry|apologi[sz]e|hmm"
    r"|forgot|miscounted|errors?\b)",
    re.IGNORECASE,
)
"""What may take an answer back, if another one follows."""

_WITHDRAWN = re.compile(
    r"\b(?:(?:that|this|it|which)(?: answer| result| value)?(?:'s|’s| is| was| seems| looks)"
    r"(?: still| clearly| obviously| surely)? (?:wrong|incorrect|mistaken|not (?:right|correct)"
    r"|(?:a|an|my) (?:mistake|error))"
    r"|(?:that|this|it) (?:isn|wasn|can|cann)(?:'t|’t|ot) (?:be )?(?:right|correct)"
    r"|I(?: have|'ve|’ve)? (?:made|make) (?:a|an|some) (?:\w+ )?(?:mistake|error)"
    r"|scratch that)\b(?!\?)",
    re.IGNORECASE,
)
"""What takes an answer back, whether or not another one follows."""


def is_withdrawn(behind: str) -> bool:
    """Whether the text behind an answer takes it back at once."""
    return _WITHDRAWN.search(behind[:WITHDRAWN_WITHIN]) is not None
