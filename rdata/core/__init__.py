"""Tasks, actors and objects: the Ray programming model, from values up to processes."""
