"""`python -m penstock.ui` is the command `penstock`."""

from penstock.ui.cli import main

if __name__ == "__main__":
    main()
