"""Commands about MODEL: list, plan, convert, tune."""
