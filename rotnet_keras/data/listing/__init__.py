"""Lists of very many images: which files, or which members of tar files, a data set has."""
