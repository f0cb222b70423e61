"""Where local state lies, and the environment that Prefect, MLflow and the hub run in.

    <home>/store/     results by fingerprint        <home>/prefect/   Prefect's database and pages
    <home>/work/      work in progress              <home>/mlflow/    MLflow's database and files
    <home>/latest/    report.json, report.html      <home>/runs/      a record per finished run
    <home>/digests.json   <home>/rates.json         those of large files; this device's speed
    <home>/up/        the process manager's files   <home>/logs/      what its services print
    <home>/logs/faults.log                          tracebacks of faults of ours
    <home>/tensorboard/, trackio/, wandb/           those of compute.track
    <home>/prefect-login   `user:secret` of both servers, mode 0600; home itself is 0700

Environment variables are read and set here, but for a process manager's own (manager.py), one of
Prefect's logging (deployments.py), W&B's mode (trackers.py) and, without flows/, cuBLAS's
(lightreasoner/__main__.py), Ray's (worker_pool.py) and vLLM's Python (vllm_server.py). A variable
that is set already stays, but for the login of our own servers, and what opens these.
"""

import contextlib
import fcntl
import os
import secrets
import stat
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

from lightreasoner.errors import ConfigError
from lightreasoner.processes import PATIENT, threads
from lightreasoner.repeatable import CUBLAS

ROOT = Path(__file__).parents[1]
PROJECT = ("params.yaml", "dvc.yaml")
"""What makes a folder a project where the code is no checkout; `lightreasoner init` writes it."""

LOGIN = "prefect-login"
OWN_PREFECT = "LIGHTREASONER_OWN_PREFECT"

BACKEND, FILES = "MLFLOW_BACKEND_STORE_URI", "MLFLOW_ARTIFACTS_DESTINATION"
PREFECT_DATABASE = (
    "PREFECT_SERVER_DATABASE_CONNECTION_URL",
    "PREFECT_API_DATABASE_CONNECTION_URL",
)
"""MLflow's and Prefect's own variables; a password in one of them stays in the environment."""

OPENING = (
    "UVICORN_",
    "MLFLOW_UVICORN_OPTS",
    "MLFLOW_GUNICORN_OPTS",
    "MLFLOW_SERVER_ALLOWED_HOSTS",
    "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS",
    "MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE",
)
"""How the names of variables begin by which a shell, knowingly or not, would open our servers."""

NO_PHONING_HOME = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    # Prefect's second interface asks a host outside; the first one does not.
    "PREFECT_SERVER_UI_V2_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DVC_NO_ANALYTICS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "WANDB_ERROR_REPORTING": "false",
    "DO_NOT_TRACK": "true",  # MLflow reads `true` only
}

SETTINGS = {
    # Prefect's own lines go to its interface; ours go to the terminal too (flows/cli/pipelines.py).
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "lightreasoner,tasks,flows",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # MLflow's eight job workers (1.7 GB) judge traces of agents; there are none here.
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    # flows/servers/watch.py: a run without a heartbeat for 90 s is dead. 30 s is the least.
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    # tasks/accelerator.py: a server that is started anew still knows who holds what, and who
    # waits asks again every second or two, not every half minute.
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency"
    ".lease_storage.filesystem",
    "PREFECT_SERVER_CONCURRENCY_MAXIMUM_CONCURRENCY_SLOT_WAIT_SECONDS": "2",
    # The terminal stays ours; tasks/tracking/trackers.py sets the mode.
    "WANDB_PROJECT": "lightreasoner",
    "WANDB_SILENT": "true",
    "WANDB_CONSOLE": "off",
    # A run without a server starts one of its own (own_prefect.py); on a new database that took
    # 24 s on two idle cores.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
    # With MLflow's defaults one call to a server that is down blocks for four minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    # The deployments' runner ends only between two polls, by default 10 s apart.
    "PREFECT_RUNNER_POLL_FREQUENCY": "3",
}


def home() -> Path:
    """LIGHTREASONER_HOME, else `.lightreasoner` of the main checkout, else of the project that the
    current folder is in, else of the user's home.

    With a checkout never the current folder's: DVC and git worktrees run commands elsewhere.
    """
    given = os.environ.get("LIGHTREASONER_HOME")
    if given:
        return Path(given).expanduser().absolute()
    is_checkout = (ROOT / "pyproject.toml").is_file()
    return (_main_checkout(ROOT) if is_checkout else _project(Path.cwd())) / ".lightreasoner"


def _project(folder: Path) -> Path:
    """The project at or above a folder, and not its copies (queued experiments) within .dvc/."""
    for each in (folder, *folder.parents):
        if ".dvc" not in each.parts and all((each / name).is_file() for name in PROJECT):
            return each
    return Path.home()


def make(home: Path) -> Path:
    """Make home if it is not there, and let only this user in.

    Raises ConfigError where it cannot be made, or is a folder for all users, as /tmp is.
    """
    if home.is_dir() and home.stat().st_mode & stat.S_ISVTX:
        raise ConfigError(
            [f"LIGHTREASONER_HOME {home}: all users may write there; use a folder of your own"]
        )
    try:
        private(home)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise ConfigError(
            [
                f"LIGHTREASONER_HOME {home}: cannot be created ({why}); "
                "use a folder that you may write to"
            ]
        ) from None
    return home


def private(folder: Path) -> Path:
    """Make a folder of mode 0700, or give this mode to one that is there."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.suppress(PermissionError):  # another user's, or on a disk without modes
        folder.chmod(0o700)
    return folder


def login(home: Path) -> str:
    """The `user:secret` that Prefect's servers of this home ask for; made once, then kept."""
    file = make(home) / LOGIN
    with os.fdopen(os.open(file, os.O_RDWR | os.O_CREAT, 0o600), "r+", encoding="utf-8") as kept:
        fcntl.flock(kept, fcntl.LOCK_EX)
        found = kept.read().strip()
        if not found:
            found = f"lightreasoner:{secrets.token_urlsafe(24)}"
            kept.write(f"{found}\n")
    return found


def _locks(home: Path, *origins: str) -> dict[str, str]:
    """What closes a Prefect server to all but the pages of these origins and who has the login."""
    both = ("PREFECT_SERVER_API_AUTH_STRING", "PREFECT_API_AUTH_STRING")
    return {
        **dict.fromkeys(both, login(home)),
        "PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS": ",".join(origins),
    }


def _mlflow_login(home: Path) -> dict[str, str]:
    """What MLflow's clients show the server of this home."""
    user, _, secret = login(home).partition(":")
    return {"MLFLOW_TRACKING_USERNAME": user, "MLFLOW_TRACKING_PASSWORD": secret}


def _main_checkout(root: Path) -> Path:
    """The checkout that a git worktree belongs to; a checkout without git is its own."""
    command = ["git", "-C", str(root), "rev-parse", "--path-format=absolute", "--git-common-dir"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return root
    git = Path(answer.stdout.strip())
    return git.parent if git.name == ".git" else root


def prepare_environment(home: Path) -> None:
    """Set what Prefect, MLflow, the hub's client, cuBLAS and OpenMP read; to be called before they
    are imported."""
    own = {
        "LIGHTREASONER_HOME": str(home),
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(interfaces(home)),
        "TRACKIO_DIR": str(home / "trackio"),
        "WANDB_DIR": str(home),
    }
    ours = {**CUBLAS, **PATIENT, **NO_PHONING_HOME, **SETTINGS}
    for name, value in {**own, **threads(), **ours}.items():
        os.environ.setdefault(name, value)


def interfaces(home: Path) -> Path:
    """Where Prefect's server puts the pages of its interfaces, one folder each."""
    return home / "prefect" / "ui"


def tracking_uri(home: Path) -> str:
    """MLFLOW_TRACKING_URI, else MLflow's database under home, which need not be there.

    Raises ConfigError where the variable names a database by a path from the current folder, or
    holds a password.
    """
    given = os.environ.get("MLFLOW_TRACKING_URI")
    if given:
        if urlsplit(given).password:  # it is kept in files, logged and shown
            raise ConfigError(
                [
                    "MLFLOW_TRACKING_URI: holds a password; leave it out and set "
                    "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or PGPASSFILE for "
                    "PostgreSQL"
                ]
            )
        if given.startswith("sqlite:///") and not given.startswith("sqlite:////"):
            raise ConfigError(
                [
                    f"MLFLOW_TRACKING_URI {given}: a relative path means another database in each "
                    'folder; give the whole path, such as "sqlite:///$PWD/mlflow.db"'
                ]
            )
        return given
    return database(home)


def database(home: Path) -> str:
    """The address of MLflow's SQLite database under home."""
    return f"sqlite:///{home / 'mlflow' / 'mlflow.db'}"


def served_database(home: Path) -> str:
    """What the MLflow server of `up` keeps: MLFLOW_BACKEND_STORE_URI, else that under home."""
    return os.environ.get(BACKEND) or database(home)


def is_stage_of_dvc() -> bool:
    """Whether DVC started this process as a stage's command."""
    return "DVC_STAGE" in os.environ


def prefect_database() -> Path | tuple[str, str]:
    """Prefect's SQLite database, or the variable that sets another one, and its value."""
    given = ((name, os.environ.get(name)) for name in PREFECT_DATABASE)
    set_ = next(((name, value) for name, value in given if value), None)
    return set_ or Path(os.environ["PREFECT_HOME"]) / "prefect.db"


def prefect_api() -> str | None:
    """PREFECT_API_URL; None stands for a server of the run's own on the database under home."""
    given = os.environ.get("PREFECT_API_URL")
    return None if given == os.environ.get(OWN_PREFECT) else given


def use_own_prefect(api: str) -> None:
    """Point Prefect at the server that this run started.

    One that is gone is to cost seconds; `up` would start one again.
    """
    os.environ.update({"PREFECT_API_URL": api, OWN_PREFECT: api})
    os.environ.setdefault("PREFECT_CLIENT_MAX_RETRIES", "1")


def own_prefect() -> tuple[str, float]:
    """The address of the server that this run started, and the seconds that its start may take."""
    seconds = os.environ["PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"]
    return os.environ[OWN_PREFECT], float(seconds)


def use_servers(home: Path, prefect_api: str, mlflow: str) -> None:
    """Point Prefect and MLflow at these servers, unless they are pointed elsewhere already.

    Only a server of this home gets the login.
    """
    if os.environ.setdefault("MLFLOW_TRACKING_URI", mlflow) == mlflow:
        os.environ.update(_mlflow_login(home))
    if os.environ.setdefault("PREFECT_API_URL", prefect_api) == prefect_api:
        os.environ["PREFECT_API_AUTH_STRING"] = login(home)


def lock_own_prefect(home: Path) -> None:
    """Let the server that Prefect starts for a run without one ask for the login; it has no page.

    It listens on a port of this machine as long as the run takes.
    """
    os.environ.update(_locks(home))


def environment_of_servers(home: Path, prefect: str, mlflow: str) -> dict[str, str]:
    """The environment of the servers at these addresses, and of who is to use no others."""
    page = prefect.replace("127.0.0.1", "localhost")
    addresses = {"PREFECT_API_URL": f"{prefect}/api", "MLFLOW_TRACKING_URI": mlflow}
    shell = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(OPENING) and (value or name not in (BACKEND, FILES))
    }
    # Python and uvicorn would take modules from the current folder first, whosever it is.
    modules = {"PYTHONSAFEPATH": "1", "UVICORN_APP_DIR": str(ROOT)}
    locks = {**_locks(home, prefect, page), **_mlflow_login(home)}
    # Not on a command line, which all users of the machine can read.
    kept = {BACKEND: served_database(home), FILES: str(home / "mlflow" / "artifacts")}
    return {**kept, **shell, **modules, **addresses, **locks}
