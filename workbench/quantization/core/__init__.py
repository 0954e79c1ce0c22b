"""Statistics, ranges, equalization, rounding, and the QDQ graph that they give."""
