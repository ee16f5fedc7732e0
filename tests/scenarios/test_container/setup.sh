# A guest with a docker of its own.
ln -sf "$PWD/docker" "$KMT_GUEST/bin/docker"
