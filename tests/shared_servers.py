"""Real servers that machines share: PostgreSQL, and S3 by moto; started as this project's users do.

Both listen on loopback and keep their state in a folder of their own. PostgreSQL asks for a
password; it refuses to run as root, so there it runs as the user `postgres` or `nobody`.
"""

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

from ports import free_port

PASSWORD = "it-s/a+secret"  # must be percent-encoded in a URL
ENCODED = "it-s%2Fa%2Bsecret"
KEY, SECRET = "an-access-key", "a-secret-of-s3"

LACKS = [
    *(() if find_spec("psycopg") and find_spec("boto3") else ("pip install -e '.[shared]'",)),
    *(() if find_spec("moto") else ("pip install 'moto[server]==5.2.5'",)),
]


def _bin() -> Path | None:
    """PostgreSQL's programs, the newest of Debian's or those on PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).resolve().parent if on_path else None


BIN = _bin()
if BIN is None:
    LACKS.append("apt-get install postgresql")


def _unprivileged() -> dict[str, object]:
    """For subprocess: another user than root."""
    if os.geteuid():
        return {}
    names = {each.pw_name for each in pwd.getpwall()}
    user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": ()}


@contextmanager
def postgresql(*databases: str) -> Iterator[str]:
    """A PostgreSQL server with these databases; yields `user:password@host:port`."""
    assert BIN is not None
    who = _unprivileged()
    folder = Path(tempfile.mkdtemp(prefix="lightreasoner-postgresql-"))
    if who:
        os.chown(folder, who["user"], who["group"])  # type: ignore[arg-type]
    (folder / "password").write_text(PASSWORD, encoding="utf-8")
    (folder / "password").chmod(0o644)
    port, data = free_port(), folder / "data"

    def call(*words: str) -> None:
        shell = {"PATH": os.environ["PATH"], "PGPASSWORD": PASSWORD, "LC_ALL": "C.UTF-8"}
        done = subprocess.run(words, cwd=folder, env=shell, capture_output=True, text=True, **who)  # type: ignore[call-overload]
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"

    options = f"-c listen_addresses=127.0.0.1 -p {port} -c unix_socket_directories={folder}"
    control = [str(BIN / "pg_ctl"), "-D", str(data), "-w", "-t", "120"]
    login = ["-h", "127.0.0.1", "-p", str(port), "-U", "team"]
    try:
        call(
            *[str(BIN / "initdb"), "-D", str(data), "-U", "team", "--no-sync"],
            *["--auth=scram-sha-256", f"--pwfile={folder / 'password'}"],
        )
        call(*control, "-l", str(folder / "log"), "-o", options, "start")
        try:
            for name in databases:
                call(str(BIN / "createdb"), *login, name)
            yield f"team:{ENCODED}@127.0.0.1:{port}"
        finally:
            call(*control, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def rows(login: str, database: str, query: str) -> list[tuple[object, ...]]:
    """What PostgreSQL answers."""
    import psycopg

    with psycopg.connect(f"postgresql://{login}/{database}") as opened:
        return opened.execute(query).fetchall()  # type: ignore[arg-type]


@contextmanager
def s3(folder: Path, *buckets: str) -> Iterator[dict[str, str]]:
    """A server of S3's API with these buckets; yields the variables of who uses it."""
    import boto3

    address = f"http://127.0.0.1:{free_port()}"
    with (folder / "s3.log").open("wb") as log:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p"]
        server = subprocess.Popen([*command, address[-5:].lstrip(":")], stdout=log, stderr=log)
    try:
        end = time.monotonic() + 120
        while True:
            with suppress(OSError):
                urllib.request.urlopen(f"{address}/moto-api/", timeout=5).close()
                break
            assert server.poll() is None
            assert time.monotonic() < end
            time.sleep(0.2)
        client = boto3.client("s3", endpoint_url=address, region_name="us-east-1",
            aws_access_key_id=KEY, aws_secret_access_key=SECRET)  # fmt: skip
        for bucket in buckets:
            client.create_bucket(Bucket=bucket)
        yield {
            "AWS_ENDPOINT_URL": address,
            "MLFLOW_S3_ENDPOINT_URL": address,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
        }
    finally:
        server.terminate()
        server.wait(30)


def objects(variables: dict[str, str], bucket: str) -> list[str]:
    """The names of a bucket's objects."""
    import boto3

    client = boto3.client("s3", endpoint_url=variables["AWS_ENDPOINT_URL"],
        aws_access_key_id=KEY, aws_secret_access_key=SECRET)  # fmt: skip
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return [each["Key"] for page in pages for each in page.get("Contents", ())]
