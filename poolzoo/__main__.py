"""`python -m poolzoo`."""

from poolzoo.cli import main

if __name__ == "__main__":
    main()
