"""Trains and judges `zoo:digits-animatediff`."""
