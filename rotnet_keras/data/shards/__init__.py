"""Shards in the convention of WebDataset: tar files whose members of one stem make a sample."""
