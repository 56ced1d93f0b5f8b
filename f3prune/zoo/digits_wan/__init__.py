"""A text-to-video model of Wan's class at real token counts: one or two coloured digits that cross and bounce."""
