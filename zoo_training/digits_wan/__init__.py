"""Trains and judges `zoo:digits-wan`."""
