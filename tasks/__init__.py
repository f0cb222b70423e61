"""The stages as cached Prefect tasks, and everything that talks to MLflow."""
