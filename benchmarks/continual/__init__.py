"""The benchmark of continual learning: six rounds of one life, and what is left of each."""
