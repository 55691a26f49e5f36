"""`python -m acclimate.daemon` is the command `acclimate`: portable folders start it so.

Knows nothing else.
"""

import sys

from acclimate.daemon.cli import main

if __name__ == "__main__":
    sys.exit(main())
