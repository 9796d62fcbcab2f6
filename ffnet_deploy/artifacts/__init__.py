"""How a file comes to be: locked, staged, verified, published with its manifest, or kept as evidence."""
