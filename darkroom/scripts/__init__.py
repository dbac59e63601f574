"""Scripts: small programs over requests. Each declares its arguments and yields the requests that it wants answered."""
