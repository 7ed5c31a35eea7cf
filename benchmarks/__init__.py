"""What redraft costs, measured (`make bench`); and the real-data runs of docs/results."""
