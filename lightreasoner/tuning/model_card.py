"""The merged model's card: Markdown under the hub's metadata."""

from collections.abc import Mapping
from typing import Any

from lightreasoner.storage import artifacts

TAGS = ["lightreasoner", "lora", "merged"]
PAPER_TAG = "arxiv:2510.07962"
TEXT = """
# {title}

An expert, LoRA-tuned {tuned_on}; the adapter is folded into the weights.

- expert: `{expert}`
- adapter: rank {r}, lora_alpha {lora_alpha}, on {modules}
- sample set: `{samples}`
- parity: KL(base + adapter in float32 || this model) is {kl_mean:.2e} nats in the mean,
  {kl_max:.2e} at most, top-1 agreement {top1_agreement:.4f}; of the expert's own cast
  {cast_kl_mean:.2e}, {cast_kl_max:.2e}, {cast_top1_agreement:.4f} ({positions} positions of
  {prompts} prompts, {held_out_prompts} of them held out of the tuning)
"""

METHOD = "A model tuned with LightReasoner"
STEPS = {
    "informative": "the steps where a weaker amateur of the same vocabulary parts from it",
    "all": "every step of its own responses",
}
LABELS = {
    "contrast": "its contrast with a weaker amateur",
    "one_hot": "the token that it wrote there",
    "expert": "its own distribution over the likely tokens",
}
SOURCES = {
    "keep": (
        "A baseline of LightReasoner",
        "on whole solutions of its own, those whose answer is the gold answer (rejection sampling)",
    ),
    "gold": ("A baseline of LightReasoner", "on whole solutions that people wrote"),
}
IMPORTED = (
    "A model tuned on imported samples",
    "on a sample set from a file in the format of LightReasoner's authors",
)
UNKNOWN = ("A tuned model", "on a sample set that does not say how it was made")


def origin(provenance: Mapping[str, Any]) -> tuple[str, str]:
    """The card's title and what its model was tuned on, by the sample set's provenance."""
    if "import" in provenance:
        return IMPORTED
    if "source" in provenance:
        return SOURCES.get(provenance["source"], UNKNOWN)
    steps, label = str(provenance.get("steps")), str(provenance.get("label"))
    if (steps, label) == ("informative", "contrast"):
        return METHOD, f"on {STEPS[steps]}\n(arXiv 2510.07962), without gold answers"
    if steps not in STEPS or label not in LABELS:
        return UNKNOWN
    sentence = f"on {STEPS[steps]}\ntowards {LABELS[label]}, without gold answers"
    return "An ablation of LightReasoner", sentence


def card_text(
    expert: str,
    adapter: Mapping[str, Any],
    samples: str,
    provenance: Mapping[str, Any],
    parity: Mapping[str, Any],
) -> str:
    """The card of a model merged from these; `expert` and `samples` are digests.

    The sample set's `provenance` says what it was tuned on. The metadata's base_model is the
    expert's name where that came from the hub. Other experts have no name here, as the card follows
    from the stage's inputs alone.
    """
    from huggingface_hub import ModelCardData

    title, tuned_on = origin(provenance)
    modules = adapter["target_modules"]
    data = ModelCardData(
        base_model=expert.partition("@")[0] if artifacts.is_pinned(expert) else None,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=[*TAGS, PAPER_TAG] if title == METHOD else TAGS,
    )
    text = TEXT.format(
        title=title,
        tuned_on=tuned_on,
        expert=expert,
        r=adapter["r"],
        lora_alpha=adapter["lora_alpha"],
        modules=modules if isinstance(modules, str) else ", ".join(modules),
        samples=samples,
        **parity,
    )
    return f"---\n{data.to_yaml()}\n---\n{text}"
