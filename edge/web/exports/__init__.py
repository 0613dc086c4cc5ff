"""Tables as files and for programs."""
