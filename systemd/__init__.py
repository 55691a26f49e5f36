"""Templates of the service managers' files; acclimate.daemon.service fills them in."""
