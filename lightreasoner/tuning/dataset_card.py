"""The card of a sample set as a data set of the hub: Markdown under the hub's metadata."""

from collections.abc import Mapping
from typing import Any

from lightreasoner import formatting
from lightreasoner.tuning import model_card

FILE = "README.md"
TAGS = ["lightreasoner", "knowledge-distillation"]
MADE = {
    "contrast": ", labelled with the contrast of expert and amateur",
    "one_hot": ", labelled with the token that the expert wrote",
    "expert": ", labelled with the expert's own distribution over the likely tokens",
    "keep": ": the expert's own solutions whose answer is right",
    "gold": ": solutions that people wrote",
}
"""By the provenance's source, or its label."""

PAGE = """
# A LightReasoner sample set

{samples:,} steps of {trajectories:,} trajectories{made}.

{settings}
{columns}
"""
AS_SELECTED = """
- `samples`: a row per step: `problem_id`, `step` (tokens of the completion before it), `token_ids`
  and `weights` (the soft label), `kl` (expert against amateur, nats)
- `trajectories`: a row per trajectory: `problem_id`, `prompt_ids`, `completion_ids`,
  `finish_reason`

At step t a model is trained on the prompt's ids, then the first t ids of the completion, with the
label as the distribution of the next token.
"""
LAID_OUT = """
A row per trajectory, tokenised: `input_ids`, `attention_mask`, `labels` (the likeliest token of
each soft label, one position later; -100 elsewhere), and per position {width} entries of the soft
label: `target_token_ids`, `target_logprobs` (temperature 1), `target_mask`. Targets at position i
belong to the logits at i and need no shift.
"""


def of_sample_set(provenance: Mapping[str, Any], samples: int, trajectories: int) -> str:
    """The card of the two tables that select writes."""
    files = {name: f"{name}.parquet" for name in ("samples", "trajectories")}
    return _card(files, provenance, samples, trajectories, AS_SELECTED)


def of_layout(provenance: Mapping[str, Any], samples: int, trajectories: int, width: int) -> str:
    """The card of what `kd_layout.export` writes."""
    columns = LAID_OUT.format(width=width)
    return _card({"default": "train.parquet"}, provenance, samples, trajectories, columns)


def _card(
    files: Mapping[str, str],
    provenance: Mapping[str, Any],
    samples: int,
    trajectories: int,
    columns: str,
) -> str:
    from huggingface_hub import DatasetCardData

    title, _ = model_card.origin(provenance)
    data = DatasetCardData(
        task_categories=["text-generation"],
        tags=[*TAGS, model_card.PAPER_TAG] if title == model_card.METHOD else TAGS,
        configs=[
            {"config_name": name, "data_files": [{"split": "train", "path": path}]}
            for name, path in files.items()
        ],
    )
    text = PAGE.format(
        samples=samples,
        trajectories=trajectories,
        made=MADE.get(str(provenance.get("source", provenance.get("label"))), ""),
        settings=_settings(provenance),
        columns=columns.strip(),
    )
    return f"---\n{data.to_yaml()}\n---\n{text}"


def _settings(provenance: Mapping[str, Any]) -> str:
    """The models, and the rule where steps were selected."""
    score = provenance.get("score", {})
    named = {
        "expert": score.get("expert") or provenance.get("generate", {}).get("expert"),
        "amateur": score.get("amateur"),
    }
    said = "".join(f"- {key}: `{value}`\n" for key, value in named.items() if value is not None)
    if not {"threshold", "alpha", "label"} <= provenance.keys():
        return said
    first = "skip_first_step" in provenance.get("reference", ())
    return f"{said}\n{formatting.selection({**provenance, 'without_first_steps': first})}\n"
