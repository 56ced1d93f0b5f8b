"""zoo:digits-animatediff: the zoo's image UNet with motion modules, drawing the digit clips (AnimateDiff)."""
