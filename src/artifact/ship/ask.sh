# Says what a guest lacks. Arguments: store, trees, layout root, digest of the tree. Input: one blob a line, its digest, and `-MODE` unless that is 755.
# Answers `have`; or `gzip` where it can unpack that, `need <digest>` for each missing blob, and `end`.
set -u
store=$1 trees=$2 root=$3 tree=$4
if [ -e "$root" ] && [ ! -L "$root" ]; then
  echo "$root is there and is no symbolic link" >&2
  exit 13
fi
# What a crash left behind.
for new in "$trees"/.new-*; do
  [ ! -e "$new" ] || rm -rf "$new"
done
# Blobs arrive with a modification time of 1; one that was written to since is read again.
spoiled=
if [ -e "$store/.stamp" ]; then
  for blob in $(find "$store" -type f -newer "$store/.stamp" 2>/dev/null); do
    sum=$(sha256sum <"$blob") || exit 14
    name=${blob##*/}
    if [ "${sum%% *}" != "${name%%-*}" ]; then
      rm -f "$blob"
      spoiled=yes
    fi
  done
  now=$(readlink "$root" 2>/dev/null)
  case $now in
  "$trees/$tree-"*) [ -z "$spoiled" ] && [ -d "$now" ] && { echo have; exit 0; } ;;
  esac
fi
command -v gzip >/dev/null && echo gzip
while IFS= read -r blob; do
  [ -f "$store/$blob" ] || echo "need $blob"
done
echo end
