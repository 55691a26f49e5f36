"""The benchmark of continual learning: six rounds of one person's life, and what is left of each."""
