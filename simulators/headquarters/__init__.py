"""Systems outside the store: the broker, the CRM, other stores."""
