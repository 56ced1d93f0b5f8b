"""What made the models of ``f3prune.zoo``: training, evaluation and cards. Not part of the installed package."""
