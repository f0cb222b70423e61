"""The plan of a run: a row per stage, the disk, what the hub would be asked, what is assumed.

Where all is stored already, nothing is measured and no model library is loaded.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightreasoner.config import Compute, Evaluate, Params
from lightreasoner.errors import LightReasonerError
from lightreasoner.forecast import limits, local, rates, sizes
from lightreasoner.forecast.limits import Disk
from lightreasoner.forecast.local import Start
from lightreasoner.forecast.rates import Rate
from lightreasoner.forecast.sizes import Sizes
from lightreasoner.formatting import NONE
from lightreasoner.pipeline.graph import GRAPH, STAGES, Stage, resolved
from lightreasoner.pipeline.store import Outcome, Store

if TYPE_CHECKING:
    from lightreasoner.forecast.stages import Setting

STEP_BYTES = 300
"""Of a token's row in the tables that are stored, about."""

TO_DO = "to do"
WORK = ("stage", "state", "problems", "tokens", "tokens (at most)", "FLOP", "bytes")
TIME = ("stage", "time", "time (at most)", "bound", "memory")


@dataclass(frozen=True)
class Row:
    """A stage. `state` is stored or to do; of a stored one, seconds and memory are those of its
    making. Pairs are (expected, at most); None where the stage runs no model or nothing is known.
    """

    stage: str
    state: str
    problems: int | None = None
    tokens: tuple[float, float] | None = None
    flop: float | None = None
    bytes: float | None = None
    seconds: tuple[float, float] | None = None
    bound: str | None = None
    memory: float | None = None


@dataclass(frozen=True)
class Plan:
    """All that is known before a run; `refusal` is why it cannot run here, if that is certain."""

    rows: list[Row]
    rate: Rate | None
    disks: list[Disk]
    start: Start
    notes: list[str]
    refusal: LightReasonerError | None

    def tree(self) -> dict[str, Any]:
        """For machines: bytes, FLOP, seconds; tokens and seconds as expected and at most."""
        return {
            "stages": [asdict(row) for row in self.rows],
            "rate": asdict(self.rate) if self.rate else None,
            "disks": [{**asdict(disk), "place": str(disk.place)} for disk in self.disks],
            "hub": {"models": list(self.start.models), "sets": list(self.start.sets)},
            "notes": self.notes,
            "refusal": str(self.refusal) if self.refusal else None,
        }


def plan(params: Params, home: Path, given: Rate | None = None, anew: bool = False) -> Plan:
    """The plan for a home's store, at a given rate or else this device's, measured if it must be.

    Raises ModelError and ProblemsError for what the parameters name wrongly.
    """
    start, store, compute = local.start(params), Store(home), resolved(params.compute)
    done = local.stored(params, start.inputs, store)
    rows = [_row(stage, done.get(stage.name)) for stage in GRAPH]
    to_do = [row.stage for row in rows if row.stage in limits.STAGES and row.state == TO_DO]
    expert, amateur = (start.shapes[role] for role in local.MODELS)
    disks = limits.places(start, compute, home)
    if expert is None or amateur is None:
        unknown = [role for role, shape in start.shapes.items() if shape is None]
        notes = [f"{role}: its shape is unknown; fetch its config.json" for role in unknown]
        return Plan(rows, given, disks, start, notes, None)
    room = dict.fromkeys(limits.STAGES, given.memory) if given else limits.memory(compute.device)
    needs = limits.in_each_dtype(params, compute, expert, amateur)
    refusal = limits.refusal(needs, room, compute, () if given else disks, done)
    rate = given
    if given is None and (anew or (to_do and refusal is None)):
        rate = rates.kept(home, compute, anew)
    if not to_do:
        return Plan(rows, rate, disks, start, [], refusal)
    found = _sizes(params, start, store, done)
    per_row = sizes.labels(params, found["generate"], done.get("select"))
    from lightreasoner.forecast.stages import Setting

    setting = Setting(params, compute, expert, amateur, found, per_row, min(room.values()))
    rows = [_forecast(row, setting, rate) if row.stage in to_do else row for row in rows]
    tables = STEP_BYTES * sum(each.rows * (each.prompt + each.new) for each in found.values())
    disks = limits.places(start, compute, home, tables)
    notes = _notes(found, per_row, "select" in done, compute)
    return Plan(rows, rate, disks, start, notes, refusal)


def _row(stage: Stage, stored: Outcome | None) -> Row:
    if stored is None:
        return Row(stage.name, TO_DO)
    seconds, peak = (float(stored.manifest[name]) for name in ("seconds", "peak_memory_mib"))
    return Row(stage.name, "stored", seconds=(seconds, seconds), memory=peak * 2**20)


def _sizes(
    params: Params, start: Start, store: Store, done: Mapping[str, Outcome]
) -> dict[str, Sizes]:
    """Of trajectories, which all stages but the evaluations rest on, and of answers to come."""
    found = {"generate": sizes.trajectories(params, start, store, done.get("generate"))}
    for name in ("evaluate_base", "evaluate"):
        if name not in done:
            config = STAGES[name].settings(params)
            assert isinstance(config, Evaluate)
            found[name] = sizes.answers(config, name, start, store)
    return found


def _forecast(row: Row, setting: "Setting", rate: Rate | None) -> Row:
    """The row with what is expected of the stage, at the rate if there is one."""
    from lightreasoner.forecast import stages

    full = replace(setting, sizes={name: each.at_most() for name, each in setting.sizes.items()})
    work, most = (stages.work(each, row.stage) for each in (setting, full))
    row = replace(
        row,
        problems=setting.sizes.get(row.stage, setting.sizes["generate"]).problems,
        tokens=(stages.tokens(setting, row.stage), stages.tokens(full, row.stage)),
        flop=work.flop,
        bytes=work.bytes,
        memory=stages.peak(setting, row.stage),
    )
    elsewhere = stages.is_vllms(setting, row.stage) and setting.compute.endpoints
    if rate is None or elsewhere:
        return row
    device, n = setting.compute.device, stages.together(setting, row.stage)
    (seconds, bound), (longest, _) = (rate.seconds(each, device) for each in (work, most))
    return replace(row, seconds=(seconds / n, longest / n), bound=bound)


def _notes(
    found: dict[str, Sizes], per_row: float, is_selected: bool, compute: Compute
) -> list[str]:
    """What is assumed."""
    notes = [
        f"{name}: answers of {each.new:.0f} tokens, {each.basis}" for name, each in found.items()
    ]
    names = ", ".join(found)
    if compute.endpoints:
        notes.append(f"{names}: by named servers, at a rate that only they know")
    elif compute.engine == "vllm":
        notes.append(f"{names}: by vLLM, whose start is not counted: half a minute or more")
    how = "as selected" if is_selected else "a guess unless select says it"
    return [*notes, f"finetune: {per_row:.1f} samples a trajectory, {how}"]


def units(value: float | None, unit: str = "") -> str:
    """`27.6M` or, of a unit, `27.6 MB`: three digits and a power of a thousand."""
    if value is None:
        return NONE
    power = max(0, min(8, int(math.log10(max(value, 1)) // 3)))
    shown = value / 1000**power
    digits = max(0, 2 - int(math.log10(max(shown, 1)))) if power else 0
    return f"{shown:.{digits}f}{' ' * bool(unit)}{' kMGTPEZY'[power].strip()}{unit}"


def duration(seconds: float | None) -> str:
    """`12 s`, `3.4 min` or `2.6 h`."""
    if seconds is None:
        return NONE
    size, name = next(each for each in ((3600, "h"), (60, "min"), (0, "s")) if seconds >= each[0])
    return (
        f"{seconds:.2g} s" if not size and seconds < 10 else f"{seconds / (size or 1):.3g} {name}"
    )


def work_rows(found: Plan) -> list[tuple[str, ...]]:
    """Under WORK."""
    return [
        (
            row.stage,
            row.state,
            NONE if row.problems is None else f"{row.problems:,}",
            *(units(each) for each in row.tokens or (None, None)),
            units(row.flop),
            units(row.bytes, "B"),
        )
        for row in found.rows
    ]


def time_rows(found: Plan) -> list[tuple[str, ...]]:
    """Under TIME; the last row is the sum of what is to do."""
    rows = [
        (
            row.stage,
            *(duration(each) for each in row.seconds or (None, None)),
            row.bound or NONE,
            units(row.memory, "B"),
        )
        for row in found.rows
    ]
    to_do = [row.seconds for row in found.rows if row.state == TO_DO and row.seconds]
    total = [duration(sum(each)) for each in zip(*to_do, strict=True)] or [NONE, NONE]
    return [*rows, ("all to do", *total, NONE, NONE)]


def lines(found: Plan) -> list[str]:
    """What stands below the tables: rates, disk, the hub, what is assumed."""
    said = []
    if rate := found.rate:
        said.append(
            f"rates: {rate.device}, {rate.dtype}, {rate.date}: {units(rate.flop, 'FLOP/s')}, "
            f"{units(rate.bytes, 'B/s')}, {1e3 * rate.layer_seconds:.3g} ms per call of a layer, "
            f"{units(rate.memory, 'B')} of memory"
        )
    said += [
        f"disk: {disk.place}: {units(disk.expected, 'B')} to be written, "
        f"{units(disk.free, 'B')} free"
        for disk in found.disks
    ]
    hub = [*found.start.models, *found.start.sets]
    said.append(f"of the hub: {', '.join(hub) if hub else 'nothing'}")
    return [*said, *(f"assumed: {note}" for note in found.notes)]
