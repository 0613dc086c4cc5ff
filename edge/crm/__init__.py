"""What the CRM sends down, and what it is told of past days."""
