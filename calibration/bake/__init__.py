"""Tools that rewrite attention: weights cut and reordered, modules and handlers that stand in a site's place."""
