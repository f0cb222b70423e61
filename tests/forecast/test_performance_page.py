"""The tables of docs/performance.md are what `lightreasoner plan` says."""

from pathlib import Path

import pytest

from lightreasoner import config
from lightreasoner.forecast import plan, rates
from lightreasoner.forecast.limits import STAGES
from lightreasoner.forecast.plan import TIME, WORK
from lightreasoner.formatting import markdown_table
from lightreasoner.presets import PRESETS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "performance.md"


WRITTEN = ("generate", "evaluate_base", "evaluate")


@pytest.mark.parametrize("name", ["qwen2.5-math-1.5b", "qwen2.5-math-7b"])
@pytest.mark.parametrize(("engine", "stages"), [("transformers", STAGES), ("vllm", WRITTEN)])
def test_the_papers_job_on_one_card(
    name: str, engine: str, stages: tuple[str, ...], tmp_path: Path
) -> None:
    card = rates.read(ROOT / "benchmarks" / "rates" / "h200.json")
    on_card = ("compute.device=cuda", "compute.dtype=bfloat16", f"compute.engine={engine}")
    found = plan.plan(config.changed(PRESETS[name], on_card), tmp_path, card)
    rows = [
        (stage, *work, *time)
        for (stage, _, *work), (_, *time) in zip(
            plan.work_rows(found), plan.time_rows(found)[:-1], strict=True
        )
        if stage in stages
    ]
    print(table := markdown_table((WORK[0], *WORK[2:], *TIME[1:]), rows))
    assert table in PAGE.read_text(encoding="utf-8")
