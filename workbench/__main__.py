"""`python -m workbench` is `wb`."""

from workbench.cli.app import main

main()
