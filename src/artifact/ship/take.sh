# Takes a tar of missing blobs and the new tree, and puts the tree in place. Arguments: store, trees,
# layout root, name of the new tree, what undoes the coding of the stream (two words at most). Nothing is
# published before everything is there and verified. An emulated guest pays 10 ms for each process.
set -u
store=$1 trees=$2 root=$3 tree=$4 unpack=$5
new=$trees/.new-$tree
trap 'rm -rf "$new" "$root.new"' EXIT
trap 'exit 15' HUP INT TERM PIPE
if [ -e "$root" ] && [ ! -L "$root" ]; then
  echo "$root is there and is no symbolic link" >&2
  exit 13
fi
mkdir -p "$store" "$new/blobs" "$new/tree" "${root%/*}" || exit 14
# The tree is hard links to blobs; those that are here already lie behind this link.
ln -s "$store" "$new/store" || exit 14
extract() { tar -x -f - -C "$new"; }
# A pipe that is not needed takes an emulated guest a quarter of the time. Some tars do not say that the disk is full: a
# second write does.
if [ "$unpack" = cat ]; then extract; else $unpack | extract; fi || { head -c 1000000 /dev/zero >"$new/probe"; exit 10; }
[ -f "$new/complete" ] || { echo "the stream ended early" >&2; exit 10; }
# Files with holes come in parts, named by their first block.
if [ -s "$new/sparse" ]; then
  while read -r blob size; do
    mode=755
    case $blob in *-*) mode=${blob##*-} ;; esac
    : >"$new/blobs/$blob" || exit 12
    for part in "$new/parts/$blob"/*; do
      [ -f "$part" ] || continue
      dd if="$part" of="$new/blobs/$blob" bs=4096 seek="${part##*/}" conv=notrunc 2>/dev/null || { head -c 1000000 /dev/zero >"$new/probe"; exit 10; }
      rm -f "$part"
    done
    dd if=/dev/null of="$new/blobs/$blob" bs=1 seek="$size" 2>/dev/null || exit 10
    touch -r "$new/sums" "$new/blobs/$blob" && chmod "$mode" "$new/blobs/$blob" || exit 12
  done <"$new/sparse"
  while read -r blob dest; do
    case $dest in */*) mkdir -p "$new/tree/${dest%/*}" || exit 12 ;; esac
    ln "$new/blobs/$blob" "$new/tree/$dest" || exit 12
  done <"$new/later"
fi
if [ -s "$new/sums" ]; then
  (cd "$new/blobs" && exec sha256sum -c ../sums) >"$new/verdicts" 2>&1 || { grep -v ': OK$' "$new/verdicts" | head -n 5 >&2; exit 11; }
  mv -f "$new/stamp" "$store/.stamp" || exit 12
  (cd "$new/blobs" && exec find . -type f -exec sh -c 'exec mv -f "$@" "$0"' "$store/" {} +) || exit 12
fi
mv "$new/tree" "$trees/$tree" || exit 12
[ ! -L "$root.new" ] || rm -f "$root.new"
ln -s "$trees/$tree" "$root.new" || exit 12
mv -T "$root.new" "$root" 2>/dev/null || { rm -f "$root" && mv "$root.new" "$root"; } || exit 12
for old in "$trees"/*; do
  [ "$old" = "$trees/$tree" ] || rm -rf "$old"
done
# Blobs of other selections stay for the next ship, until room gets short.
df -Pk "$store" | { read -r _; read -r _ _ _ _ used _; [ "${used%\%}" -ge 70 ]; } 2>/dev/null &&
  find "$store" -type f ! -name .stamp -links 1 -exec rm -f {} + 2>/dev/null
echo published
