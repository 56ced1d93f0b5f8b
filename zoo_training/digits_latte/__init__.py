"""Trains and judges `zoo:digits-latte`."""
