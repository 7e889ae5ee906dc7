"""`metarun report`: stored results -> a plain model of a page -> one self-contained HTML file."""
