"""The chain's side of the contract: sinks that commit to PostgreSQL, the log behind them, steering of all stores."""
