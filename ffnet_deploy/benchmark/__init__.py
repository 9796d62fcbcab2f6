"""How fast: candidates timed side by side, with the spread of every number."""
