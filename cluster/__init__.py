"""Where a run runs: a head and an MLflow server on this machine, or a Kubernetes cluster."""
