"""The card of a sample set says by which rule its steps were selected."""

import pytest

from lightreasoner.config import Select
from lightreasoner.tuning import dataset_card


@pytest.mark.parametrize(
    ("changes", "threshold", "said"),
    [
        ({}, 0.4, "above 0.4 nats became samples."),
        ({"quantile": 0.9}, 1.7, "above 1.7 nats, quantile 0.9 of all steps, became samples."),
        ({"steps": "all", "label": "one_hot"}, None, "Every step became a sample."),
        ({"reference": ["skip_first_step"]}, 0.4, "became samples, but for first steps."),
    ],
)
def test_a_sample_sets_card_names_the_rule_that_applied(
    changes: dict[str, object], threshold: float | None, said: str
) -> None:
    select = Select.model_validate(changes).model_dump(mode="json")
    provenance = {**select, "threshold": threshold, "score": {"expert": "e", "amateur": "a"}}
    text = dataset_card.of_sample_set(provenance, 10, 2)
    assert "- amateur: `a`\n" in text
    assert said in text
    assert "beta" not in text
    assert ("α = 0.2" in text) == (select["label"] != "one_hot")


def test_a_card_of_whole_solutions_has_no_rule() -> None:
    text = dataset_card.of_sample_set({"source": "gold", "generate": {"expert": "e"}}, 10, 2)
    assert "- expert: `e`\n" in text
    assert "KL(expert" not in text
