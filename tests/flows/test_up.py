"""`up`, `down`, `status` and the process manager below, with small real servers."""

import contextlib
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import psutil
import pytest
import standins
from ports import free_port

from flows.environment import ROOT
from flows.servers import local, manager, up
from flows.servers.manager import MARK, NAME, Manager, ServerError, Service

pytestmark = pytest.mark.slow

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def home() -> Iterator[Path]:
    """A home with a path that fits a socket on macOS, too; whatever is left running is ended."""
    with tempfile.TemporaryDirectory(prefix="lr up ") as folder:
        path = Path(folder).resolve() / "home"
        yield path
        Manager(path).stop()


def until(true: Callable[[], object], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)


Plan = Mapping[str, tuple[float, float]]
"""Seconds until each service answers, and until it fails, by name; "last" needs the others."""
THREE: Plan = {"first": (0, 0), "second": (0, 0), "last": (0, 0)}


def rows_of(plan: Plan) -> list[list[object]]:
    return [[name, free_port(), *times] for name, times in plan.items()]


def detached(home: Path, plan: Plan) -> list[Service]:
    """What `up --detach` has started."""
    services = [standins.service(home, *row) for row in rows_of(plan)]
    standins.hold(home, services, detach=True)
    return services


def port_of(service: Service) -> int:
    return int(service.address.rpartition(":")[2])


def gone(home: Path, services: Sequence[Service]) -> bool:
    quiet = not any(standins.answers(port_of(service)) for service in services)
    return quiet and not Manager(home).left()


def order(home: Path) -> list[str]:
    return (home / "order.txt").read_text(encoding="utf-8").splitlines()


def spawned(home: Path) -> list[str]:
    return re.findall(r"spawned: '(\w+)'", Manager(home).log("manager").read_text(encoding="utf-8"))


class Up:
    """`up` in the foreground, as a process; may be entered again."""

    def __init__(self, home: Path, plan: Plan):
        self.rows = rows_of(plan)
        self.services = [standins.service(home, *row) for row in self.rows]
        self.command = [sys.executable, standins.__file__, str(home), json.dumps(self.rows)]
        self.output = home.parent / "up.txt"

    def __enter__(self) -> "Up":
        paths = os.pathsep.join([str(ROOT), *sys.path])
        with self.output.open("wb") as file:
            self.process = subprocess.Popen(
                self.command,
                env={**os.environ, "PYTHONPATH": paths},
                stdout=file,
                stderr=file,
                preexec_fn=standins.hear,
            )
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def said(self) -> str:
        return self.output.read_text(encoding="utf-8")

    def ready(self) -> None:
        def is_so() -> bool:
            assert self.process.poll() is None, self.said()
            return "Ctrl-C stops" in self.said()

        until(is_so)


def test_services_start_in_order_and_end_in_reverse_at_ctrl_c(home: Path) -> None:
    """The first takes a second to answer: the second starts meanwhile, the last waits."""
    with Up(home, {**THREE, "first": (1, 0)}) as it:
        it.ready()
        assert spawned(home) == ["first", "second", "last"]
        assert standins.state(home, it.services)
        it.process.send_signal(signal.SIGINT)
        assert it.process.wait(60) == 0
        assert gone(home, it.services)
    assert order(home)[2:] == ["start last", "end last", "end second", "end first"]
    assert local.announced(home) is None
    lines = [line.split() for line in it.said().splitlines() if " ready " in line]
    assert [line[0] for line in lines] == ["second", "first", "last"]


def test_who_needs_others_starts_when_they_answer(home: Path) -> None:
    with Up(home, {"first": (2, 0), "last": (0, 0)}) as it:
        until(lambda: (home / "order.txt").exists())
        while not standins.answers(port_of(it.services[0])):
            assert order(home) == ["start first"]
            time.sleep(0.1)
        it.ready()
        assert order(home) == ["start first", "start last"]


def test_only_the_users_socket_and_loopback_are_listened_on(home: Path) -> None:
    (service,) = detached(home, {"first": (0, 0)})
    assert stat.S_IMODE((home / "up").stat().st_mode) == 0o700
    assert stat.S_IMODE((home / "up" / "socket").stat().st_mode) == 0o700
    ours = [one for process in Manager(home).left() for one in process.net_connections("inet")]
    assert {(one.laddr.ip, one.laddr.port) for one in ours if one.status == psutil.CONN_LISTEN} == {
        ("127.0.0.1", port_of(service))
    }


def test_a_closed_terminal_ends_all(home: Path) -> None:
    with Up(home, {"first": (0, 0)}) as it:
        it.ready()
        it.process.send_signal(signal.SIGHUP)
        assert it.process.wait(60) == 0
        assert gone(home, it.services)


def test_detached_services_stay_until_down(home: Path, capsys: Captured) -> None:
    services = detached(home, THREE)
    capsys.readouterr()
    assert local.running(home) == local.Servers(services[0].address, services[2].address)
    assert standins.state(home, services)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [[name, "running"] for name in THREE]
    for line, service in zip(lines, services, strict=True):
        pid = Manager(home).states()[service.name].pid
        assert f" pid {pid}, up 0:00:" in line
        assert line.endswith(f"{service.address}  {home / 'logs' / service.name}.log")
    assert up.down(home)
    assert gone(home, services)
    assert not up.down(home)
    assert not standins.state(home, services)
    assert "stopped" in capsys.readouterr().out
    assert not up.status(home)
    assert capsys.readouterr().out.startswith("nothing is running for ")


def test_a_second_up_says_where_the_first_is(home: Path) -> None:
    first = detached(home, {"first": (0, 0)})
    with pytest.raises(ServerError, match=f"already running: Prefect {first[0].address}, "):
        detached(home, {"first": (0, 0)})
    assert standins.state(home, first)
    up.down(home)
    with Up(home, {"first": (0, 0)}) as it:
        it.ready()
        with pytest.raises(ServerError, match=f"already running: Prefect {it.services[0].address}"):
            detached(home, {"first": (0, 0)})
        assert standins.state(home, it.services)


def test_down_ends_an_up_in_the_foreground(home: Path) -> None:
    with Up(home, {"first": (0, 0)}) as it:
        it.ready()
        assert up.down(home)
        assert it.process.wait(60) == 0
        assert "stopped by `lightreasoner down`" in it.said()


def test_down_ends_an_up_that_still_waits(home: Path) -> None:
    with Up(home, {"first": (60, 0)}) as it:
        until(lambda: (home / "order.txt").exists())
        assert up.down(home)
        assert it.process.wait(60) == 0
        assert gone(home, it.services)


def test_a_service_that_fails_is_started_again(home: Path) -> None:
    with Up(home, {"first": (0, 0), "second": (0, 0)}) as it:
        it.ready()
        psutil.Process(Manager(home).states()["second"].pid).kill()
        until(lambda: "second   restarted " in it.said())
        until(lambda: standins.state(home, it.services))
        assert spawned(home) == ["first", "second", "second"]


def test_status_and_the_log_say_that_a_process_ended(home: Path, capsys: Captured) -> None:
    """For as long as the next one runs; nothing of one that never ended."""
    services = detached(home, {"first": (0, 0), "second": (0, 0)})
    old = Manager(home).states()["second"].pid
    psutil.Process(old).kill()
    until(lambda: Manager(home).states()["second"].pid not in (0, old))
    until(lambda: standins.state(home, services))
    capsys.readouterr()
    assert standins.state(home, services)
    one, two, said = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in (one, two)] == [
        ["first", "running"],
        ["second", "running"],
    ]
    log = Manager(home).log("manager")
    when = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
    assert re.fullmatch(rf" +ended at {when}, started again; {re.escape(str(log))} says how", said)
    assert "exited: second (terminated by SIGKILL; not expected)" in log.read_text(encoding="utf-8")


def test_a_restarted_server_gets_its_port_from_what_it_left(home: Path) -> None:
    """MLflow's main process is killed alone; its child holds the port."""
    services = detached(home, {"parent": (0, 0)})
    old = Manager(home).states()["parent"].pid
    (child,) = psutil.Process(old).children()
    psutil.Process(old).kill()
    until(lambda: Manager(home).states()["parent"].pid not in (0, old))
    until(lambda: order(home).count("start child") == 2)
    until(lambda: standins.state(home, services))
    assert not child.is_running()
    assert order(home)[2:] == ["end child", "start parent", "start child"]


def test_a_service_that_fails_again_and_again_is_named(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manager, "RETRIES", 1)
    with pytest.raises(ServerError) as error:
        detached(home, {"first": (0, 0), "second": (60, 0.1), "last": (0, 0)})
    assert not Manager(home).left()
    assert order(home).count("start second") == 2
    assert str(error.value).startswith("second ended 2 times within 60 s of its start (out of luck")
    assert str(error.value).endswith("second.log")


def test_status_names_what_is_down(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    """A detached service that fails for good stays fatal, and the others go on."""
    monkeypatch.setattr(manager, "RETRIES", 1)
    services = detached(home, {"first": (0, 0), "second": (0, 4)})
    until(lambda: Manager(home).states()["second"].word == "fatal")
    assert local.running(home) is None
    capsys.readouterr()
    assert not standins.state(home, services)
    one, two, log = capsys.readouterr().out.splitlines()
    assert one.split()[:2] == ["first", "running"]
    assert two.split()[:3] == ["second", "fatal", "-"]
    assert "out of luck" in log


def test_a_service_that_is_never_ready_ends_the_wait(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(up, "START_SECONDS", 1.0)
    with pytest.raises(ServerError, match=r"not ready after 1 s: first; see .*first\.log"):
        detached(home, {"first": (60, 0)})
    assert not Manager(home).left()


def test_what_a_killed_manager_leaves_is_ended(home: Path, capsys: Captured) -> None:
    """SIGKILL to the manager orphans its services; they hold the ports that the next `up` wants."""
    services = detached(home, {"first": (0, 0), "second": (0, 0)})
    for ending in ("up", "down"):
        _kill_manager(home)
        assert standins.answers(port_of(services[0]))
        assert not up.status(home)
        assert "`lightreasoner down` or `up` ends what it left" in capsys.readouterr().out
        if ending == "up":
            standins.hold(home, services, detach=True)
            assert "ended what an earlier `up` left behind" in capsys.readouterr().out
            assert standins.state(home, services)
        else:
            assert up.down(home)
            assert gone(home, services)


def test_a_killed_manager_ends_an_up_in_the_foreground(home: Path) -> None:
    with Up(home, {"first": (0, 0)}) as it:
        it.ready()
        _kill_manager(home)
        assert it.process.wait(60) == 2
        assert "the process manager has ended; see " in it.said()
        assert gone(home, it.services)


def test_up_works_after_an_up_was_killed(home: Path) -> None:
    """SIGKILL to `up` in the foreground leaves a manager with nobody before it."""
    it = Up(home, {"first": (0, 0)})
    for _ in range(2):
        with it:
            it.ready()
            it.process.kill()
            it.process.wait()
            assert standins.state(home, it.services)
    assert "ended what an earlier `up` left behind" in it.said()
    assert order(home) == ["start first", "end first", "start first"]


def test_stale_files_of_a_crash_do_not_block(home: Path) -> None:
    """A reboot leaves a socket that nobody listens on and pids that are now others'."""
    (home / "up").mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(home / "up" / "socket"))
    pid = os.getpid()
    (home / "up" / "supervisord.pid").write_text(f"{pid}\n", encoding="utf-8")
    assert local.running(home) is None
    detached(home, {"first": (0, 0)})


def test_nobody_elses_process_is_ended(home: Path) -> None:
    """Neither one of another home nor one whose pid an old file names."""
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    with contextlib.ExitStack() as stack:
        for mark in (str(home) + "2", None):
            environment = {**os.environ, **({MARK: mark} if mark else {})}
            process = stack.enter_context(subprocess.Popen(sleep, env=environment))
            stack.callback(process.kill)
            (home / "up").mkdir(parents=True, exist_ok=True)
            (home / "up" / "supervisord.pid").write_text(f"{process.pid}\n", encoding="utf-8")
            assert not up.down(home)
            assert process.poll() is None


def test_homes_do_not_meddle(home: Path) -> None:
    """Not even where the other's path starts with this one's; each has its servers and its end."""
    other = home.with_name("home2")
    both = {each: detached(each, {"first": (0, 0)}) for each in (home, other)}
    for each, (service,) in both.items():
        assert local.announced(each) == local.Servers(service.address, service.address)
    assert up.down(home)
    assert gone(home, both[home])
    assert standins.state(other, both[other])
    assert up.down(other)


def _kill_manager(home: Path) -> None:
    (one,) = [each for each in Manager(home).left() if NAME not in each.environ()]
    one.kill()
    until(lambda: local.announced(home) is None)


def test_a_taken_port_is_named_with_its_holder(home: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        service = standins.service(home, "first", port)
        with pytest.raises(ServerError) as error:
            standins.hold(home, [service], detach=True)
    assert str(error.value).startswith(f"port {port} on 127.0.0.1 is taken by ")
    assert f"(pid {os.getpid()}); end what uses it" in str(error.value)
    assert str(error.value).endswith("with --first-port")


def test_paths_that_the_manager_cannot_take_are_refused(tmp_path: Path) -> None:
    for name in ("a%b", "a ;b", "a" * 100):
        home = tmp_path / name
        with pytest.raises(ServerError, match=f"^LIGHTREASONER_HOME {home}: the .* 85 bytes"):
            detached(home, {"first": (0, 0)})


def test_logs_are_rotated(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manager, "LOG_MEGABYTES", 1)
    code = "print('x' * 1500000, flush=True); input()"
    rotated = home / "logs" / "loud.log.1"
    service = Service("loud", "", ["-c", code], lambda _: rotated.exists())
    standins.hold(home, [service], detach=True)
    assert (home / "logs" / "loud.log").stat().st_size < 1_100_000


def test_both_servers_cannot_have_one_port() -> None:
    with pytest.raises(ServerError, match="port 4200 is given to both"):
        local.at(Path("home"), 4200, 4200)
