"""Scoring a network on labelled images, as published: data sets, preprocessing, protocol, scores, pictures."""
