"""What the UI reads: run folders, recipes and GPUs. No widgets."""
