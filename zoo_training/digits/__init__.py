"""Trains and judges `zoo:digits`."""
