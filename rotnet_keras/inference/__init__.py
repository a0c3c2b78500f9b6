"""Trained models applied to image files: orientation, anomalies, embeddings and few-label comparisons."""
