"""Is rotation a sensible pretext task for these images?"""
