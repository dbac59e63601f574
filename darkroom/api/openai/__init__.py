"""The routes under `/v1`: OpenAI's image API, answered by the same engine."""
