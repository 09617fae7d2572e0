"""A node's agent: what it serves, one file each, and what wires them together (`agent.py`)."""
