"""Layers of images: which packages each adds, by the records that package managers leave in files."""
