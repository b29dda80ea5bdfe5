"""`python -m kinema` is `kinema`."""

from kinema.cli import main

if __name__ == "__main__":
    main()
