"""The metric as an `evaluate` module, `evaluate.load(<this folder>)`; `ICDMetricsAccumulator` for use without it."""
