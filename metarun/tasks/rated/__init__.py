"""Ratings of items by users: data sets, their features as inputs, and their division into splits."""
