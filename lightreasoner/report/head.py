"""What a report's page says at its top, below the headline: models, problems, seeds.

Equal results have equal pages. So the stored page says what the report's inputs say: digests, which
are names only on the hub, and nothing of the run. A run's own page says all of it in their place.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from lightreasoner.data.problems import problem_of
from lightreasoner.storage import artifacts

if TYPE_CHECKING:
    from lightreasoner.report.trajectories import Scored

FACTS = Markup('<dl class="head">{}</dl>')
BEGIN, END = FACTS.split("{}")
DIGITS = 12


def of_inputs(scored: "Scored", conditions: Mapping[str, Any]) -> dict[str, str]:
    """What the inputs say, `conditions` being the evaluation's; what they do not is left out."""
    score, generate = scored.select.get("score", {}), scored.select.get("generate", {})
    problems = {problem_of(id_) for id_ in scored.ids}
    sets = sorted({id_.rpartition("/")[0] for id_ in problems})
    seeds = {"trajectories": generate.get("seed"), "evaluation": conditions["seed"]}
    return {
        **{name: named("", score[name]) for name in ("expert", "amateur") if name in score},
        "problems": f"{len(problems):,} of {', '.join(sets)}",
        "seeds": ", ".join(f"{of} {seed}" for of, seed in seeds.items() if seed is not None),
    }


def of_run(page: str, facts: Mapping[str, str]) -> str:
    """A stored page with a run's own facts in place of those of its inputs."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{html(facts)}{rest.partition(END)[2]}"


def html(facts: Mapping[str, str]) -> Markup:
    """The facts as the page has them."""
    rows = (Markup("<dt>{}</dt><dd>{}</dd>").format(*fact) for fact in facts.items())
    return FACTS.format(Markup("").join(rows))


def named(name: str, digest: str) -> str:
    """`name (digest)` of a model or a source of problems, in short.

    Of an absolute path the last part is enough. Without a name the digest of a derived model, or of
    what is on the hub, gives one.
    """
    base, _, derived = digest.partition("+")
    name = name or derived or (base if artifacts.is_pinned(base) else "")
    plain = name.partition("@")[0] if artifacts.is_pinned(name) else name
    shown = Path(plain).name if Path(plain).is_absolute() else plain
    short = base.rpartition("@")[2][:DIGITS]
    return f"{shown} ({short})" if shown and short not in ("", shown) else shown or short
