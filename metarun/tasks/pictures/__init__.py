"""Reading images: folders, zips, lists, archives and pickles of a user's copy."""
