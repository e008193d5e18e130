"""TVM's runtime for the page: our amalgamation of the wheel's sources, and how it is compiled and linked."""
