"""`python cli.py …` from a checkout is the installed `cloudnet …`."""

from cloudnet.commands import main

if __name__ == "__main__":  # a worker process of predict --jobs imports this file
    main()
