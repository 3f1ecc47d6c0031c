"""Convert files to OME-Zarr, or a folder of files to a folder of images."""
