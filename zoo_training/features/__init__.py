"""Trains the feature network."""
