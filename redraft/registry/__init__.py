"""MLflow: training runs, model packages, metrics with lineage, and the champion/challenger aliases."""
