"""Serving measured beside llama.cpp's own server: one module for each kind of figure."""
