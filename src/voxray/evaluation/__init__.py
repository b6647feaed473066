"""Metrics, protocols, and running a model on a store."""
