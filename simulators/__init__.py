"""A shop with walking shoppers and its readers on real wires; a central CRM. Never imported by the service."""
