"""Trains and judges `zoo:digits-image`."""
