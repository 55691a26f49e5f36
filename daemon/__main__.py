"""`python -m acclimate.daemon` is the command `acclimate`: portable folders start it so.

Knows nothing else.
"""

from acclimate.daemon.cli import main

if __name__ == "__main__":
    main()
