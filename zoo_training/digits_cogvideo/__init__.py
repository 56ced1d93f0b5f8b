"""Trains and judges `zoo:digits-cogvideo`."""
