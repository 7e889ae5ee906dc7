"""`metarun predict`: images, tables and ratings of the user's own, from a support set to a file of predictions."""
