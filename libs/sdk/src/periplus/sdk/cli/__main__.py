"""`python -m periplus.sdk.cli`: the command where no script is on the path."""

from periplus.sdk.cli.entry import main

if __name__ == "__main__":
    main()
