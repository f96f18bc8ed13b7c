"""`python -m dbops` is the command `dbops`."""

from dbops.cli.main import main

if __name__ == "__main__":
    main()
