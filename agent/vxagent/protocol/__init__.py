"""Shapes that travel between the command line and the agent, and stand in files that people write."""
