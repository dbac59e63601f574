"""Jobs and pictures that must outlive the process: a database, its migrations, and a place for files."""
