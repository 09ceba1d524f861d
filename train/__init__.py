"""Training: recipes, the loop, tracking and the comparison of the five arms."""
