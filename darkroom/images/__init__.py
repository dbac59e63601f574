"""Pictures as files and pixels: codecs, masks, overlays, grids, notes, folders. A leaf; Pillow and numpy only."""
