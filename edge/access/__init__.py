"""The page's own data: users, sessions, tokens, the audit log and verdicts."""
