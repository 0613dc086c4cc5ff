"""The page's own data: users, sessions, the audit log and verdicts."""
