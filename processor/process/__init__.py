"""Worker processes: slots, supervision, signals, probes, metrics."""
