"""How fast: contenders timed side by side, with the spread of every number."""
