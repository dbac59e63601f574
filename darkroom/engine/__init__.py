"""The engine: holds many suspended jobs and answers their questions in batches."""
