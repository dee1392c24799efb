"""Gradients and training. What it promises: docs/training.md; imported when it is asked for."""
