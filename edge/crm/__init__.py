"""Messages from the CRM, and reports to it about past days."""
