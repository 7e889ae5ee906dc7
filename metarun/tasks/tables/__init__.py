"""Reading tables: the file, its columns, missing cells and standardisation."""
