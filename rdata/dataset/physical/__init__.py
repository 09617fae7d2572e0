"""How do the operators of a plan run? Tasks, actors, and what moves between them."""
