"""`python -m processor` is the command line."""

from processor.cli.main import main

if __name__ == "__main__":
    main()
