"""One file a format of quantised release: how it is known, and what weights its codes stand for."""
