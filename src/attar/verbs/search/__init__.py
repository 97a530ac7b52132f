"""Search for the smallest student that fits, under a budget."""
