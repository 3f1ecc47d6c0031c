"""`python -m sketchscale` is the command line."""

from sketchscale.cli import main

if __name__ == "__main__":
    main()
