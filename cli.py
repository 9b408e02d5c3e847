"""`python cli.py …` from a checkout is the installed `cloudnet …`."""

from cloudnet.commands import main

main()
