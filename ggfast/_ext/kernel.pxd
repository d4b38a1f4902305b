# kernel offers no C face: other extensions have no business with containers.
