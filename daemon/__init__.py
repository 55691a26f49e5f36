"""Running: watching, serving, scheduling and the command line.

Never imports torch, transformers or peft; the worker process does that.
"""
