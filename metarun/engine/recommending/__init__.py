"""Scores of recommendation: errors of ratings, rankings, and the baselines beside which every model stands."""
