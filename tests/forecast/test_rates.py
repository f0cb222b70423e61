"""Rates: measured once on this machine, kept, or given."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import psutil
import pytest
import torch

from lightreasoner.config import Compute
from lightreasoner.errors import ConfigError
from lightreasoner.forecast import rates
from lightreasoner.forecast.rates import Rate
from lightreasoner.forecast.work import Work

CPU = Compute(device="cpu", dtype="float32")
RATE = Rate("a card", "bfloat16", 100.0, 10.0, 0.5, 1e9, "2026-01-01")


def test_rates_are_measured_once_and_kept(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    found = rates.kept(tmp_path, CPU)
    assert torch.equal(torch.get_rng_state(), before)
    n = torch.get_num_threads()
    assert found.device.endswith(f" {n} thread{'s' * (n > 1)}")
    assert 1e8 < found.flop < 1e14
    assert 1e7 < found.bytes < 1e13
    assert 1e-6 < found.layer_seconds < 1
    assert found.memory == psutil.virtual_memory().total + psutil.swap_memory().total
    path = tmp_path / "rates.json"
    (key,) = json.loads(path.read_text())
    known = replace(found, flop=7.0)
    path.write_text(json.dumps({key: asdict(known), "other": "damaged"}))
    assert rates.kept(tmp_path, CPU) == known
    path.write_text("{")
    assert rates._load(path) == {}


def test_a_device_that_is_measured_again_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rates, "MATRIX", {"cpu": 64})
    monkeypatch.setattr(rates, "READ_BYTES", {"cpu": 1 << 16})
    key = f"{rates.device_name(CPU)}, float32"
    (tmp_path / "rates.json").write_text(json.dumps({key: asdict(RATE)}))
    assert rates.kept(tmp_path, CPU) == RATE
    assert rates.kept(tmp_path, CPU, anew=True) != RATE
    assert rates.kept(tmp_path, CPU).dtype == "float32"


def test_seconds_and_bounds_by_hand() -> None:
    """1,000 FLOP at 100 a second, 20 bytes at 10, 4 calls of half a second: 10, 2 and 2 s."""
    work = Work(1000, 20, 4)
    assert RATE.seconds(work, "cpu") == (12.0, "compute")
    assert RATE.seconds(work, "cuda") == (10.0, "compute")
    assert RATE.seconds(Work(100, 200, 60), "cuda") == (30.0, "host")
    assert RATE.seconds(Work(100, 200, 60), "cpu") == (50.0, "host")
    assert RATE.seconds(Work(100, 200, 4), "cuda") == (20.0, "memory")


def test_a_given_rate_is_what_json_prints(tmp_path: Path) -> None:
    path = tmp_path / "rate.json"
    path.write_text(json.dumps(asdict(RATE)))
    assert rates.read(path) == RATE


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{}",
        json.dumps({**asdict(RATE), "flop": 0}),
        json.dumps({**asdict(RATE), "flop": True}),
        json.dumps({**asdict(RATE), "flop": "1e9"}),
        json.dumps({**asdict(RATE), "device": "a\x1b"}),
        json.dumps({**asdict(RATE), "more": 1}),
        '{"flop": NaN',
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "rate.json"
    path.write_text(text)
    with pytest.raises(ConfigError) as refused:
        rates.read(path)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        rates.read(tmp_path / "none.json")
