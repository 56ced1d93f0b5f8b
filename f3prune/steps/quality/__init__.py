"""Quality: many videos of a model's variants, generated, measured and compared."""
