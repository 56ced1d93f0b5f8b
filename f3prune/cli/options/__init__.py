"""Options that commands share, a module per topic, and the configuration that they make."""
