"""`python -m lightreasoner STAGE`: the pure commands, on a machine without Prefect and MLflow."""

from lightreasoner.cli import application

if __name__ == "__main__":
    application()(prog_name="python -m lightreasoner")
