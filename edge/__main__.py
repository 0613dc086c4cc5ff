"""`python -m edge` is `tagtrail`."""

from edge.cli.main import main

main()
