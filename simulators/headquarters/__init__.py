"""What is outside the store: the broker, the CRM, other stores."""
