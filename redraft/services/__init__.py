"""Local services of one machine: a Prefect server and an MLflow server in the background."""
