"""The files and folders of a run and of the cache: where they lie, and how metarun writes them."""
