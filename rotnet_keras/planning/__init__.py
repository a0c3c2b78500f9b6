"""What a run will cost: counted on paper, or timed by a trial."""
