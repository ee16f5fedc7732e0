#!/bin/sh
# Archives as `docker save` writes them: of old and of new, with one image and with two.
mkdir -p images && cd images || exit
save() {
  printf '%s' "$2" >manifest.json && tar -cf "$1.tar" manifest.json && rm manifest.json
}
save old '[{"Config":"aa11.json","RepoTags":["registry.example/app:1","registry.example/app:2"],"Layers":["l/layer.tar"]}]'
save new '[{"Config":"blobs/sha256/bb22","RepoTags":["two:1"],"Layers":["blobs/sha256/c"],"LayerSources":{"sha256:c":{"size":1}}},
  {"Config":"blobs/sha256/cc33","RepoTags":null,"Layers":["blobs/sha256/d"]}]'
