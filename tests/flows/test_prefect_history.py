"""Old runs go from Prefect's database with all that is theirs, and no other."""

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactCreate, LogCreate
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_SERVER_DATABASE_CONNECTION_URL, temporary_settings
from prefect.states import Completed, Running
from prefect.types._datetime import now

from flows.servers import prefect_history

pytestmark = [
    pytest.mark.usefixtures("prefect_api"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of Prefect
]


@flow
def nothing() -> None:
    """Is never run."""


def test_runs_that_ended_go_with_all_that_is_theirs(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """A kept one, one that has no end and a later one stay."""
    (database,) = tmp_path_factory.getbasetemp().glob("prefect[0-9]/prefect.db")
    with get_client(sync_client=True) as client:
        gone, kept, running = (
            client.create_flow_run(nothing, state=state).id
            for state in (Completed(), Completed(), Running())
        )
        for run in (gone, kept):
            log = LogCreate(name="n", level=20, message="m", timestamp=now("UTC"), flow_run_id=run)
            client.create_logs([log])
            client.create_artifact(ArtifactCreate(key="k", type="markdown", flow_run_id=run))
        between = time.time()
        late = client.create_flow_run(nothing, state=Completed()).id
        found = prefect_history.ended(database, between, {str(kept)})
        assert str(gone) in found
        assert not {str(kept), str(running), str(late)} & set(found)
        assert prefect_history.ended(database, between - 3600, ()) == []
        url = f"sqlite+aiosqlite:///{database}"
        with temporary_settings({PREFECT_SERVER_DATABASE_CONNECTION_URL: url}):
            prefect_history.remove([str(gone)])
        prefect_history.shrink(database)
        with pytest.raises(ObjectNotFound):
            client.read_flow_run(gone)
        assert {client.read_flow_run(run).id for run in (kept, running, late)} == {
            kept, running, late,
        }  # fmt: skip
    with closing(sqlite3.connect(database)) as opened:
        for table in ("log", "artifact", "flow_run_state"):
            rows = opened.execute(f"SELECT DISTINCT flow_run_id FROM {table}")
            ids = {row[0] for row in rows}
            assert str(gone) not in ids
            assert str(kept) in ids
        (latest,) = opened.execute("SELECT flow_run_id FROM artifact_collection WHERE key = 'k'")
        assert latest == (str(kept),)


def test_a_database_that_is_not_there_has_no_runs(tmp_path: Path) -> None:
    assert prefect_history.ended(tmp_path / "prefect.db", time.time(), ()) == []
    prefect_history.shrink(tmp_path / "prefect.db")
    assert list(tmp_path.iterdir()) == []
