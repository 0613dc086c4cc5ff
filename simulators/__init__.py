"""Simulators: a shop with walking shoppers and readers on their real protocols, and a central CRM. Never imported by
the service."""
