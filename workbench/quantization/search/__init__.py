"""Which layers compute in INT8: budgets of accuracy, latency, sensitivity."""
