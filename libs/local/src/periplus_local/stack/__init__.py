"""Everything of Periplus on one machine, started, watched and stopped together."""
