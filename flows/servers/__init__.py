"""The servers of this machine: Prefect, MLflow and the runner."""
