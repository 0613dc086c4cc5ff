"""What stands elsewhere: the broker, the CRM, other stores."""
