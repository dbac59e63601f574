"""The embedded model: its pictures, its training, its weights. Nothing here is needed to serve a real checkpoint."""
