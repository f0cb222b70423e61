"""Plans of a tiny pipeline, of the paper's job, and of what cannot run here."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import stored_pipeline
import torch

from lightreasoner import config
from lightreasoner.config import Compute, Params
from lightreasoner.errors import ConfigError, DiskFullError, ModelError, NoMemoryError
from lightreasoner.forecast import limits, local, plan, rates, sizes, stages
from lightreasoner.forecast.limits import STAGES as MODEL_STAGES
from lightreasoner.forecast.plan import TO_DO, Plan, Row
from lightreasoner.forecast.rates import Rate
from lightreasoner.forecast.shapes import Shape
from lightreasoner.forecast.stages import Setting, rows_at_once, shard, updates
from lightreasoner.inference import batching, loading
from lightreasoner.pipeline.graph import GRAPH, STAGES, external_inputs, walk
from lightreasoner.pipeline.store import Job, Store
from lightreasoner.presets import PRESETS
from lightreasoner.progress import Silent

RATE = Rate("a card", "float32", 1e9, 1e9, 1e-3, 64e9, "2026-01-01")
H200 = Path(__file__).parents[2] / "benchmarks" / "rates" / "h200.json"


def changed(params: Params, *overrides: str) -> Params:
    return config.changed(params, overrides)


def by_stage(found: Plan) -> dict[str, Row]:
    return {row.stage: row for row in found.rows}


def states(found: Plan) -> list[str]:
    return [row.state for row in found.rows]


def pair(start: local.Start) -> list[Shape]:
    return [shape for role in local.MODELS if (shape := start.shapes[role])]


def huge(tiny: Path, folder: Path) -> Path:
    """A model whose config.json asks for more memory, and disk, than any machine has."""
    shutil.copytree(tiny, folder)
    path = folder / "config.json"
    said = json.loads(path.read_text(encoding="utf-8"))
    said |= {"hidden_size": 1 << 20, "intermediate_size": 1 << 24}
    path.write_text(json.dumps(said), encoding="utf-8")
    return folder


def test_a_first_run_is_all_to_do(tiny_params: Params, tmp_path: Path) -> None:
    found = plan.plan(tiny_params, tmp_path, RATE)
    assert states(found) == [TO_DO] * len(GRAPH)
    rows = by_stage(found)
    for name in MODEL_STAGES:
        row = rows[name]
        assert all((row.seconds, row.tokens, row.flop, row.bytes, row.memory))
        assert row.seconds is not None
        assert row.seconds[0] <= row.seconds[1]
        assert row.bound in ("compute", "memory", "host")
    assert (rows["generate"].problems, rows["generate"].tokens) == (6, (36, 36))
    assert rows["evaluate"].tokens == (24, 24)
    assert rows["select"] == Row("select", TO_DO)
    assert found.refusal is None
    assert not (tmp_path / "rates.json").exists()
    assert found.tree()["hub"] == {"models": [], "sets": []}


def test_what_is_stored_is_shown_as_it_was_made(tiny_params: Params, tmp_path: Path) -> None:
    """And nothing is measured for it."""
    stored_pipeline.write_keyed(tmp_path, tiny_params)
    found = plan.plan(tiny_params, tmp_path)
    assert states(found) == ["stored"] * len(GRAPH)
    row = by_stage(found)["generate"]
    assert (row.seconds, row.memory) == ((1.5, 1.5), 100 * 2**20)
    assert found.rate is None
    assert not (tmp_path / "rates.json").exists()


def test_what_follows_a_change_is_to_do(tiny_params: Params, tmp_path: Path) -> None:
    """Samples are guessed again; the trajectories stay, whose length is the stored ones' mean."""
    stored_pipeline.write_keyed(tmp_path, tiny_params)
    found = plan.plan(changed(tiny_params, "select.beta=0.1"), tmp_path, RATE)
    to_do = ["select", "finetune", "merge", "evaluate", "report"]
    assert [row.stage for row in found.rows if row.state == TO_DO] == to_do
    assert "generate: answers of 2 tokens, as stored" in found.notes
    assert "finetune: 1.0 samples a trajectory, a guess unless select says it" in found.notes
    tuned = changed(tiny_params, "finetune.updates=3")
    assert (
        "finetune: 2.0 samples a trajectory, as selected" in plan.plan(tuned, tmp_path, RATE).notes
    )


def test_real_results_are_found_and_say_how_long_answers_are(
    tiny_params: Params, tmp_path: Path
) -> None:
    """The stages themselves run: the store's keys and payloads are theirs."""
    store, params = Store(tmp_path), changed(tiny_params, "generate.max_new_tokens=8")
    inputs = external_inputs(params, ("expert", "problem_source"))
    made = walk(
        GRAPH[:2],
        inputs,
        lambda stage, own: store.run(Job.of(stage, own, params), Silent()).artifact,
    )
    found = plan.plan(params, tmp_path, RATE)
    assert states(found)[:3] == ["stored", "stored", TO_DO]
    mean = sizes._written(made["trajectories"].path)
    start = local.start(params)
    own = sizes.trajectories(params, start, store)
    assert (own.new, own.basis) == (mean, sizes.EARLIER)
    read = pytest.approx(6 * (own.prompt + mean))
    assert by_stage(found)["score"].tokens == (read, read)
    other = sizes.trajectories(changed(params, "generate.max_new_tokens=9"), start, store)
    assert (other.new, other.basis) == (9, sizes.GUESS)


def test_answers_are_expected_as_stored_ones_were(tiny_params: Params, tmp_path: Path) -> None:
    outcomes = stored_pipeline.write_keyed(tmp_path, tiny_params)
    summaries = {}
    for name, tokens in (("evaluate_base", 20), ("evaluate", 8)):
        path = outcomes[name].artifact.path / "summary.json"
        path.write_text(json.dumps({"small": {"n": 10, "tokens": tokens}}), encoding="utf-8")
    found = plan.plan(changed(tiny_params, "evaluate.seed=7"), tmp_path, RATE)
    summaries = by_stage(found)
    assert summaries["evaluate_base"].tokens == (12, 24)
    assert summaries["evaluate"].tokens == (pytest.approx(4.8), 24)


def test_rows_and_shards_are_those_of_the_stages(tiny_params: Params, tmp_path: Path) -> None:
    """The rules of batching.py, which see the model itself."""
    params = changed(tiny_params, "generate.max_new_tokens=100")
    start, compute = local.start(params), Compute(device="cpu", dtype="float32")
    expert, amateur = pair(start)
    size = sizes.trajectories(params, start, Store(tmp_path))
    setting = Setting(
        params, compute, expert, amateur, {"generate": size}, 2.0, rates.memory("cpu")
    )
    model = loading.load_model(start.inputs["expert"].path, "cpu", "float32")
    rows = rows_at_once(setting, "generate")
    assert rows == batching.fitting_rows(model, size.longest + 100)
    tokens = round(size.prompt + 100)
    assert shard(setting, "generate", rows) == batching.shard_prompts(model, tokens, 6, compute)
    many = replace(setting, params=params, sizes={"generate": replace(size, rows=10**6)})
    assert shard(many, "generate", rows) == batching.shard_prompts(model, tokens, 10**6, compute)


def test_accuracies_while_tuning_are_counted(tiny_params: Params, tmp_path: Path) -> None:
    """Of 200 problems a fifth is held out, and 40 are asked before the first of 10 updates, after
    the fourth, the eighth and the last: as if 40 were evaluated four times."""
    held_out = ("finetune.validation_share=0.2", "finetune.updates=10")
    params = changed(tiny_params, *held_out, "finetune.evaluate_max_new_tokens=9")
    start, compute = local.start(params), Compute(device="cpu", dtype="float32")
    size = replace(sizes.trajectories(params, start, Store(tmp_path)), problems=200, rows=200)
    of = {"generate": size, "evaluate": replace(size, new=7.0)}
    off = Setting(params, compute, *pair(start), of, 2.0, rates.memory("cpu"))
    on = replace(off, params=changed(params, "finetune.evaluate_every=4"))
    asked = replace(size, rows=40, new=7.0, most=9)
    once = stages.written(replace(off, sizes={"evaluate": asked}), "evaluate")
    assert stages.tuned(on).flop - stages.tuned(off).flop == pytest.approx(4 * once.flop)
    assert stages.answered(on, 1000).flop > 1.5 * once.flop  # 64 of them


@pytest.mark.parametrize(
    ("batching", "wanted"),
    [
        ("sample", (10, 16.0, 100 + 64 / 2, 16.0, 2)),
        ("trajectory", (10, 4.0, 164.0, 16.0, 2)),
        ("solution", (10, 16.0, 164.0, 64.0, 2)),
    ],
)
def test_updates_by_hand(batching: str, wanted: tuple[float, ...], tiny_params: Params) -> None:
    """16 samples an update, 8 a pass, 4 a trajectory of 100 + 64 tokens: on a GPU, two passes."""
    over = (
        f"finetune.batching={batching}",
        "finetune.updates=10",
        "finetune.samples_per_update=16",
    )
    params = changed(tiny_params, *over, "finetune.samples_per_forward=8")
    start = local.start(params)
    expert, amateur = pair(start)
    size = sizes.Sizes(1000, 1000, 100.0, 120, 64.0, 64, sizes.GUESS)
    cuda = Compute(device="cuda", dtype="bfloat16")
    found = updates(Setting(params, cuda, expert, amateur, {"generate": size}, 4.0, 1e9))
    assert (found.count, found.rows, found.tokens, found.labels, found.passes) == wanted


def test_the_papers_job_is_planned_without_the_hub(tmp_path: Path) -> None:
    """1,000 problems; seven benchmarks of 13,499; a 7B in bfloat16 on a card of 141 GB."""
    params = changed(PRESETS["qwen2.5-math-7b"], "compute.device=cuda", "compute.dtype=bfloat16")
    found = plan.plan(params, tmp_path, rates.read(H200))
    rows = by_stage(found)
    assert rows["generate"].problems == 1000
    assert rows["evaluate"].problems == 13_499
    assert rows["evaluate"].tokens == (13_499 * sizes.USUAL_ANSWER, 13_499 * 2048)
    assert rows["merge"].memory is not None
    assert 15.2e9 + 4 * 152_064 * 3584 < rows["merge"].memory < 19e9
    assert [name.partition("@")[0] for name in found.start.models] == [
        "Qwen/Qwen2.5-Math-7B", "Qwen/Qwen2.5-0.5B",
    ]  # fmt: skip
    assert len(found.start.sets) == 7  # gsm8k's two splits are one repository
    assert found.disks[0].expected > found.disks[0].least > 15e9
    assert found.disks[1].least > 16e9
    assert found.refusal is None


def by_vllm(*more: str) -> Params:
    over = ("device=cuda", "dtype=bfloat16", "engine=vllm", *more)
    return changed(PRESETS["qwen2.5-math-7b"], *(f"compute.{each}" for each in over))


def test_vllm_is_planned_without_the_hosts_calls(tmp_path: Path) -> None:
    """1,024 rows, in one line: the weights are read less often, and the host is no bound."""
    card = rates.read(H200)
    in_process = by_vllm("engine=transformers")
    ours, its, four = (
        by_stage(plan.plan(params, tmp_path, card))
        for params in (in_process, by_vllm(), by_vllm("gpus=4", "gpus_per_model=2"))
    )
    assert (ours["evaluate"].bound, its["evaluate"].bound) == ("host", "compute")
    for name in ("generate", "evaluate_base", "evaluate"):
        assert ours[name].flop == its[name].flop == four[name].flop
        a, b, c = (row[name].seconds for row in (ours, its, four))
        assert a is not None
        assert b is not None
        assert c is not None
        assert b[0] < a[0] / 5
        assert b[0] / 4 <= c[0] < b[0] / 3  # each copy reads the weights for its own rows
        assert its[name].memory == 0.9 * card.memory
    assert ours["score"] == its["score"]
    said = "generate, evaluate_base, evaluate: by vLLM, whose start is not counted"
    assert any(note.startswith(said) for note in plan.plan(by_vllm(), tmp_path, card).notes)


def test_what_named_servers_hold_needs_no_memory_here(tmp_path: Path) -> None:
    """Nor is it known how fast they are. GPUs that share a model hold a part each."""
    card = rates.read(H200)
    named = by_vllm(
        "endpoints=[http://one/v1]", "endpoint_version=0.32.0", "endpoint_dtype=bfloat16"
    )
    found = plan.plan(named, tmp_path, card)
    assert by_stage(found)["evaluate"].seconds is None
    assert by_stage(found)["score"].seconds is not None
    assert any("by named servers" in note for note in found.notes)
    for params, share in ((named, 0), (by_vllm("gpus=2", "gpus_per_model=2"), 0.5)):
        expert, amateur = pair(local.start(params))
        needs = limits.least(params, params.compute, expert, amateur)
        assert needs["evaluate"] == share * expert.weight_bytes("bfloat16")
        assert needs["finetune"] > expert.weight_bytes("bfloat16")


def test_each_process_on_a_cpu_has_its_own_weights() -> None:
    """On GPUs each has a GPU."""
    params = changed(PRESETS["qwen2.5-math-7b"], "finetune.processes=2", "compute.workers=3")
    expert, amateur = pair(local.start(params))
    for device, n, ranks in (("cpu", 3, 2), ("cuda", 1, 1)):
        compute = params.compute.model_copy(update={"device": device, "dtype": "float32"})
        needs = limits.least(params, compute, expert, amateur)
        assert needs["generate"] == n * expert.weight_bytes("float32")
        assert needs["finetune"] > ranks * expert.weight_bytes("float32")


def test_too_small_a_machine_is_refused_with_what_would_help(tmp_path: Path) -> None:
    """28.4 GiB in float32, 30.2 with the amateur. In bfloat16 merge needs most: 14.2 GiB, and the
    LM head of 152,064 x 3,584 in float32.
    """
    params = changed(PRESETS["qwen2.5-math-7b"], "compute.device=cpu", "compute.dtype=float32")

    def refused(gib: float, params: Params = params) -> str:
        memory = int(gib * 2**30)
        return str(plan.plan(params, tmp_path, replace(RATE, memory=memory)).refusal)

    assert refused(23) == (
        "score: needs at least 30.2 GiB of memory for weights alone, 23.0 GiB are there (cpu); set "
        "compute.dtype=bfloat16, use a machine with more, or a smaller model"
    )
    assert "there (cpu); use a machine" in refused(16)
    assert refused(31) == "None"
    halved = changed(params, "compute.dtype=bfloat16")
    assert refused(23, halved) == "None"
    assert refused(16, halved).startswith("merge: needs at least 16.2 GiB of memory for weights")


def test_merge_keeps_an_expert_in_the_dtype_of_its_files(
    tiny_params: Params, tiny_expert: Path, tmp_path: Path
) -> None:
    """The head is the largest matrix: 259 x 32."""
    half = tmp_path / "half"
    shutil.copytree(tiny_expert, half)
    loading.load_model(tiny_expert, "cpu", "bfloat16").save_pretrained(half)
    for path, kept, widened in ((tiny_expert, 4, 0), (half, 2, 4)):
        params = changed(tiny_params, f"models.expert={path}")
        expert, amateur = pair(local.start(params))
        for dtype, written in (("float32", 4), ("bfloat16", 2)):
            compute = Compute(device="cpu", dtype=dtype)
            found = limits.least(params, compute, expert, amateur)["merge"]
            n = expert.parameters
            assert found == max(written * n, kept * n + widened * 259 * 32)


def test_what_no_machine_holds_is_refused_before_a_run(
    tiny_params: Params, tiny_expert: Path, tmp_path: Path
) -> None:
    params = changed(tiny_params, f"models.expert={huge(tiny_expert, tmp_path / 'huge')}")
    with pytest.raises(NoMemoryError, match=r"^finetune: needs at least [\d,.]+ GiB of memory"):
        limits.check(params, tmp_path / "home")
    limits.check(tiny_params, tmp_path / "home")
    start, compute = local.start(params), Compute(device="cpu", dtype="float32")
    refused = limits.no_disk(limits.places(start, compute, tmp_path / "home"))
    assert isinstance(refused, DiskFullError)
    assert str(refused).startswith(f"{tmp_path / 'home'}: ")
    found = plan.plan(params, tmp_path / "home")
    assert isinstance(found.refusal, NoMemoryError)
    assert found.rate is None
    assert plan.time_rows(found)[-1] == ("all to do", *[plan.NONE] * 4)


def test_what_of_a_model_is_here_need_not_be_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A download that was cut short goes on."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    start = local.start(PRESETS["qwen2.5-math-1.5b"])
    compute = Compute(device="cpu", dtype="float32")
    whole = limits.places(start, compute, tmp_path)[1].least
    assert whole == 2 * (1_543_714_304 + 494_032_768)
    blobs = tmp_path / "models--Qwen--Qwen2.5-0.5B" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / "part.incomplete").write_bytes(bytes(1000))
    assert limits.places(start, compute, tmp_path)[1].least == whole - 1000


def test_an_amateur_made_of_the_expert_is_not_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """26 of Qwen2.5-Math-1.5B's 28 layers of 46,797,824 parameters; bits change no size."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    compute = Compute(device="cpu", dtype="float32")
    params = PRESETS["qwen2.5-math-1.5b"]
    for name, left in (("self:layers:2", 1_543_714_304 - 2 * 46_797_824), ("self:bits:4", 0)):
        start = local.start(changed(params, f"models.amateur={name}"))
        assert start.models == (params.models.expert,)
        assert start.inputs["amateur"].digest == f"{params.models.expert}+{name}"
        expert, amateur = pair(start)
        assert amateur.parameters == (left or expert.parameters)
        assert limits.places(start, compute, tmp_path)[1].least == 2 * 1_543_714_304


def test_an_amateur_of_no_layers_cannot_be_planned(tiny_params: Params, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"self:layers:2: leaves none of the 2 layers"):
        plan.plan(changed(tiny_params, "models.amateur=self:layers:2"), tmp_path, RATE)


def test_a_gpu_that_is_not_there_is_no_limit_but_cannot_be_measured(
    tiny_params: Params, tmp_path: Path
) -> None:
    """Results of a GPU may be browsed elsewhere."""
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    params = changed(tiny_params, "compute.device=cuda", "compute.dtype=float32")
    limits.check(params, tmp_path)
    with pytest.raises(ConfigError, match=r"compute\.device cuda: torch finds no GPU here"):
        plan.plan(params, tmp_path)
    stored_pipeline.write_keyed(tmp_path, params)
    assert states(plan.plan(params, tmp_path)) == ["stored"] * len(GRAPH)


def test_a_stored_stage_needs_no_memory(
    tiny_params: Params, tiny_expert: Path, tmp_path: Path
) -> None:
    """What a larger machine has computed may be browsed on a smaller one."""
    params = changed(tiny_params, f"models.expert={huge(tiny_expert, tmp_path / 'huge')}")
    stored_pipeline.write_keyed(tmp_path / "home", params)
    limits.check(params, tmp_path / "home")
    more = changed(params, "evaluate.seed=9")
    with pytest.raises(NoMemoryError, match=r"^evaluate"):
        limits.check(more, tmp_path / "home")


def test_a_model_of_another_layout_is_planned_without_numbers(
    tiny_params: Params, tiny_expert: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "odd"
    shutil.copytree(tiny_expert, folder)
    path = folder / "config.json"
    said = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(said | {"hidden_size": None}), encoding="utf-8")
    params = changed(tiny_params, f"models.expert={folder}")
    found = plan.plan(params, tmp_path, RATE)
    assert {row.seconds for row in found.rows} == {None}
    assert found.notes == ["expert: its shape is unknown; fetch its config.json"]
    limits.check(params, tmp_path)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "–"), (0, "0"), (7, "7"), (999, "999"), (1000, "1.00k"), (27_645_952, "27.6M"),
     (128_000, "128k"), (989e12, "989T"), (9.99e17, "999P")],
)  # fmt: skip
def test_units(value: Any, shown: str) -> None:
    assert plan.units(value) == shown


def test_a_number_with_its_unit() -> None:
    given = plan.units(None, "B"), plan.units(512, "B"), plan.units(14.9e9, "FLOP/s")
    assert given == ("–", "512 B", "14.9 GFLOP/s")


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, "–"),
        (0.0791, "0.079 s"),
        (9.6, "9.6 s"),
        (45.2, "45.2 s"),
        (204, "3.4 min"),
        (9000, "2.5 h"),
    ],
)
def test_durations(seconds: Any, shown: str) -> None:
    assert plan.duration(seconds) == shown


def test_every_stage_that_runs_a_model_is_forecast() -> None:
    assert set(MODEL_STAGES) < STAGES.keys()
    assert {s.name for s in GRAPH} - set(MODEL_STAGES) == {"prepare", "select", "report"}


def test_a_model_that_was_fetched_before_is_here(
    tiny_expert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the layout of the hub's own cache; while its weights are missing, it is not."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    name = PRESETS["qwen2.5-math-1.5b"].models.expert
    repository, _, revision = name.partition("@")
    folder = tmp_path / f"models--{repository.replace('/', '--')}" / "snapshots" / revision
    shutil.copytree(tiny_expert, folder)
    found, is_here = local._model(name)
    assert (found.path, found.digest, is_here) == (folder, name, True)
    (folder / "model.safetensors").unlink()
    assert local._model(name)[1] is False
