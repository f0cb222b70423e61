"""`lightreasoner pair`, through the real command line."""

import json
from collections.abc import Sequence
from pathlib import Path

from command_line import call, faults
from tiny_models import write_model, write_tokenizer
from typer.testing import Result

from lightreasoner import config
from lightreasoner.evaluation import power
from lightreasoner.pipeline.graph import STAGES, external_inputs
from lightreasoner.pipeline.store import Job, Store
from lightreasoner.presets import PRESETS
from lightreasoner.sampling.pull import LEAST

SMALL = ("compute.device=cpu", "evaluate.max_new_tokens=48", "prepare.n_problems=20")


def pair(tmp_path: Path, *overrides: str, limit: str = "4", amateurs: Sequence[str] = ()) -> Result:
    """`lightreasoner pair` with the micro-world's parameters, those of a small pipeline."""
    params = tmp_path / "params.yaml"
    params.write_text(config.dump(PRESETS["microworld"]), encoding="utf-8")
    flags = [each for each in overrides if each.startswith("--")]
    values = [each for each in (*SMALL, *overrides) if each not in flags]
    options = [*flags, *(part for value in values for part in ("--set", value))]
    home = str(tmp_path / "home")
    options += [part for name in amateurs for part in ("--amateur", name)]
    return call("pair", "--params", str(params), "--home", home, "--limit", limit, *options)


def sources(problems: Path) -> tuple[str, ...]:
    """A tiny pipeline's problems."""
    evaluated = (f"evaluate.source={problems}", "evaluate.problem_sets=[small]")
    sampled = (f"prepare.source={problems}", "prepare.problem_set=small", "prepare.n_problems=6")
    return (*evaluated, *sampled, "generate.max_new_tokens=6")


def stored(tmp_path: Path) -> set[Path]:
    return set((tmp_path / "home" / "store" / "evaluate_base").iterdir())


def test_the_microworlds_expert_is_ahead_of_its_amateur(tmp_path: Path) -> None:
    """On its problems of the kind `transfer`: a table, no warning, and results in the store."""
    overrides = ("evaluate.problem_sets=[transfer]", "evaluate.max_new_tokens=128")
    overrides += ("prepare.n_problems=60",)
    result = pair(tmp_path, *overrides, limit="40")
    assert (result.exit_code, result.stderr) == (0, "")
    name, above, heading, *lines = [line.split() for line in result.stdout.splitlines()]
    rows, (taught,) = lines[:2], lines[-1:]
    assert f"\n{power.note({'transfer': 40})}\n" in result.stdout
    assert name == ["microworld/amateur"]
    assert above[:2] == ["expert", "amateur"]
    assert heading[:6] == ["problem", "set", "n", "verdict", "(95%", "CI)"]
    assert [row[:3] for row in rows] == [["transfer", "40", "qwen"], ["transfer", "40", "strict"]]
    assert all(float(row[7]) > 0 for row in rows)
    assert taught[0] == "microworld/amateur"
    assert float(taught[-2]) > LEAST
    before = stored(tmp_path)
    assert len(before) == 2
    found = json.loads(pair(tmp_path, *overrides, "--json", limit="40").stdout)
    (told,) = found.values()
    assert (told["sets"]["transfer"]["n"], told["warnings"]) == (40, [])
    assert told["teaching"]["pull"] > LEAST
    assert pair(tmp_path, *overrides, limit="40").stdout == result.stdout
    assert stored(tmp_path) == before


def test_the_experts_scores_are_those_of_evaluate_base(
    tmp_path: Path, tiny_expert: Path, tiny_amateur: Path, problems_file: Path
) -> None:
    """Under the base's prompt: a pipeline of the same parameters finds them in the store."""
    models = (f"models.expert={tiny_expert}", f"models.amateur={tiny_amateur}")
    chosen = (*SMALL, *models, *sources(problems_file), "evaluate.base_style=cot")
    assert pair(tmp_path, *chosen).exit_code == 0
    params = config.load(tmp_path / "params.yaml", [*chosen, "evaluate.n_problems=4"])
    stage = STAGES["evaluate_base"]
    job = Job.of(stage, external_inputs(params, stage.inputs), params)
    found = Store(tmp_path / "home").find(job)
    assert found is not None
    assert found.manifest["config"]["style"] == "cot"
    assert len(stored(tmp_path)) == 2


def test_a_model_is_not_ahead_of_itself(
    tmp_path: Path, tiny_expert: Path, problems_file: Path
) -> None:
    """It is graded once; the warning goes to stderr and is no failure."""
    models = (f"models.expert={tiny_expert}", f"models.amateur={tiny_expert}")
    result = pair(tmp_path, *models, *sources(problems_file))
    assert result.exit_code == 0
    ahead, same = result.stderr.splitlines()
    name = f"warning: {tiny_expert}: "
    assert ahead.startswith(f"{name}small: the expert is not shown to be ahead of the amateur")
    assert same == (
        f"{name}no step is selected: expert and amateur say the same; take another amateur"
    )
    assert "small" in result.stdout
    assert "warning" not in result.stdout
    assert len(stored(tmp_path)) == 1


def test_models_of_two_vocabularies_are_refused_before_any_is_graded(
    tmp_path: Path, tiny_expert: Path
) -> None:
    other = write_model(tmp_path / "other", seed=3, hidden=16, layers=1, vocab_size=260)
    write_tokenizer(other, ["one more"])
    (line,) = faults(pair(tmp_path, f"models.expert={tiny_expert}", f"models.amateur={other}"))
    assert "differ in ordinary token" in line
    assert not (tmp_path / "home").exists()


def test_several_amateurs_are_told_of_one_by_one(
    tmp_path: Path, tiny_expert: Path, tiny_amateur: Path, problems_file: Path
) -> None:
    """One that is made of the expert needs no directory; all are checked before any is graded."""
    chosen = (f"models.expert={tiny_expert}", *sources(problems_file))
    amateurs = (str(tiny_amateur), "self:layers:1")
    for wrong, said in (
        ("self:layer:1", "must be self:layers:N"),
        ("self:layers:2", "leaves none"),
    ):
        (line,) = faults(pair(tmp_path, *chosen, amateurs=(*amateurs, wrong)))
        assert said in line
    (line,) = faults(pair(tmp_path, *chosen, "compute.engine=vllm", amateurs=amateurs[1:]))
    assert line.endswith("vllm serves a directory; give --set compute.engine=transformers")
    assert not (tmp_path / "home").exists()
    result = pair(tmp_path, *chosen, amateurs=amateurs)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert [line for line in lines if line in amateurs] == list(amateurs)
    assert [line.split()[0] for line in lines[-2:]] == list(amateurs)
    assert len(stored(tmp_path)) == 3
    assert len(list((tmp_path / "home" / "store" / "score").iterdir())) == 2
    assert len(list((tmp_path / "home" / "store" / "generate").iterdir())) == 1
