"""A page in the browser: drop a photograph, see its maps, click a point and see what it attends to."""
