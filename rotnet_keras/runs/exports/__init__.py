"""What runs export: backbones, classifiers and their cards, and the checks of such files."""
