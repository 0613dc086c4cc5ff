"""What the CRM sends down and is told of past days."""
