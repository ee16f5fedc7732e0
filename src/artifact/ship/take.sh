# Takes a tar of missing blobs and the new tree, and puts the tree in place. Arguments: store, trees,
# layout root, name of the new tree. Nothing is published before everything is there and verified.
set -u
store=$1 trees=$2 root=$3 tree=$4
new=$trees/.new-$tree
trap 'rm -rf "$new" "$root.new"' EXIT
trap 'exit 15' HUP INT TERM PIPE
mkdir -p "$new/blobs" "$new/tree" || exit 14
# Some tars do not say that the disk is full: a second write does.
tar -x -f - -C "$new" || { head -c 1000000 /dev/zero >"$new/probe"; exit 10; }
[ -f "$new/complete" ] || { echo "the stream ended early" >&2; exit 10; }
if [ -s "$new/sums" ]; then
  (cd "$new/blobs" && sha256sum -c ../sums) >"$new/verdicts" 2>&1 || { grep -v ': OK$' "$new/verdicts" | head -n 5 >&2; exit 11; }
fi
mv -f "$new/stamp" "$store/.stamp" || exit 12
(cd "$new/blobs" && find . -type f -exec mv -f {} "$store/" \;) || exit 12
# The tree is hard links to blobs, named relative to the folder that holds both.
ln -s "$store" "$new/tree/.store" || exit 12
(cd "$new/tree" && tar -x -f ../tree.tar) || exit 12
rm -f "$new/tree/.store"
mv "$new/tree" "$trees/$tree" || exit 12
rm -f "$root.new"
mkdir -p "${root%/*}" && ln -s "$trees/$tree" "$root.new" || exit 12
mv -T "$root.new" "$root" 2>/dev/null || { rm -f "$root" && mv "$root.new" "$root"; } || exit 12
for old in "$trees"/*; do
  [ "$old" = "$trees/$tree" ] || rm -rf "$old"
done
# Blobs of other selections stay for the next ship, until room gets short.
set -- $(df -Pk "$store" | tail -n 1)
used=${5:-100%}
if [ "${used%\%}" -ge 70 ] 2>/dev/null; then
  find "$store" -type f ! -name .stamp -links 1 -exec rm -f {} \; 2>/dev/null
fi
echo published
