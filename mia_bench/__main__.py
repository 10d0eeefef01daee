"""`python -m mia_bench`."""

from mia_bench.cli import main

main()
