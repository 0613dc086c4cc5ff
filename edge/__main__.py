"""`python -m edge` is `tagtrail`."""

from edge.cli import main

main()
