"""Nodes served to other programs, each call a run of its own."""
