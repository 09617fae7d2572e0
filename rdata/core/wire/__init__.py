"""How do bytes travel between processes? Frames, connections, authentication."""
