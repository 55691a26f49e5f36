"""Running: watching, serving, scheduling and the command line.

Never imports torch, transformers or peft; the worker process does that.
"""

import os

# No other package's plugin is to see what is validated here, and to look for one takes a twentieth
# of a start: pydantic would read what every installed package says of itself.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "true")
