"""What a server did wrong, in words: a failed request, and an answer that is none."""

import json
from typing import TYPE_CHECKING

from pydantic import ValidationError

from lightreasoner.untrusted import json_value

if TYPE_CHECKING:
    from openai import APIError

START = "start it with `vllm serve DIR`"
EXCERPT = 200
"""How many characters of a server's own words an error quotes."""

REMEDIES = {
    range(300, 400): "give that address as the url if the prompts may go there",
    (401, 403): "give the API key that the server was started with",
    (404,): "check that the url ends in /v1 and that the model is served",
    (429,): "lower the concurrency, or try later",
    range(400, 500): "change what is asked: the prompt and max_new_tokens must fit the context",
    range(1000): f"see the server's own log, and {START} again if it is down",
}
"""The remedy for a status: that of the first range that contains it."""


def failure_message(error: "APIError", timeout: float) -> str:
    """A failed request: what came of it, after how many tries, and what helps."""
    from openai import APIStatusError, APITimeoutError

    tries = int(error.request.headers.get("x-stainless-retry-count", 0)) + 1
    after = f" in {tries} tries" if tries > 1 else ""
    if isinstance(error, APITimeoutError):
        return (
            f"sent nothing for {timeout:g} s{after}; ask for less at a time (concurrency, "
            "max_new_tokens) or allow a longer timeout"
        )
    if isinstance(error, APIStatusError):
        status = error.status_code
        remedy = next(remedy for known, remedy in REMEDIES.items() if status in known)
        said = error.response.headers.get("location") or error.response.text
        return f"answered {status}{after}: {excerpt(said)}; {remedy}"
    reason = "refused" if _is_refused(error) else excerpt(str(error.__cause__ or error))
    return f"cannot be reached{after} ({reason}); {START}, or correct the url"


def _is_refused(error: BaseException | None) -> bool:
    """Whether an error was caused by a refused connection."""
    while error is not None and not isinstance(error, ConnectionRefusedError):
        if isinstance(error, BaseExceptionGroup):  # of a host with several addresses
            error = error.exceptions[0]
        else:
            error = error.__cause__ or error.__context__
    return error is not None


def well_formed(body: bytes) -> bytes:
    """JSON without lone surrogates, which some servers escape and no file holds: `?` for each.

    Raises ValueError for what is no JSON.
    """
    tree = json_value(body.decode())
    return json.dumps(tree, ensure_ascii=False).encode(errors="replace")


def fault(error: ValueError) -> str:
    """What is wrong with an answer, and where in it."""
    if not isinstance(error, ValidationError):
        return f"the whole: Invalid JSON: {error}"
    fault = error.errors()[0]
    return f"{'.'.join(map(str, fault['loc'])) or 'the whole'}: {fault['msg']}"


def excerpt(text: str) -> str:
    """The beginning of a text, on one line, as Python writes it."""
    return repr(clipped(" ".join(text.split())))


def clipped(line: str) -> str:
    """The beginning of a line."""
    return line if len(line) <= EXCERPT else line[:EXCERPT] + "..."
