"""Parts that several pages share. Each is a function that puts controls where it is called."""
