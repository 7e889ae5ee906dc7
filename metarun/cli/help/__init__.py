"""What the command line explains: `metarun train --help` and `metarun list GROUP OPTION`, from the comments of the config files."""
