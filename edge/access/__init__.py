"""Users, sessions, the audit log and verdicts: what the page keeps for itself."""
