"""Figures as SVG: readable without scripts, one drawing for each width of screen, colours from the page's styles."""
