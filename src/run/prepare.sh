# Prepares a guest. Input, one value a line: nonce, folder of the component, file for what scripts export, then for each step its kind and four values.
# After each step it says, behind a record separator and the nonce: the time, `ok` or `failed`, and words. The first
# step that fails is the last. An emulated guest pays 10 ms for each process.
set -u
next() { IFS= read -r value; }
say() {
  read -r now _ </proc/uptime
  printf '\036kmt %s %s %s %s\n' "$nonce" "$now" "$1" "$2"
}
next && nonce=$value
next && root=$value
next && exports=$value

program() {
  command -v "$1" >/dev/null || { echo "there is no program \`$1\`"; return 1; }
}
installed() {
  if command -v dpkg-query >/dev/null; then
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
  elif command -v rpm >/dev/null; then
    rpm -q "$1" >/dev/null 2>&1
  elif command -v apk >/dev/null; then
    apk info -e "$1" >/dev/null 2>&1
  elif command -v pacman >/dev/null; then
    pacman -Q "$1" >/dev/null 2>&1
  else
    return 1
  fi
}
package() {
  rest=$1
  while [ -n "$rest" ]; do
    name=${rest%%"|"*}
    if installed "$name"; then return 0; fi
    case $rest in *"|"*) rest=${rest#*"|"} ;; *) rest= ;; esac
  done
  echo "package \`$1\` is not installed"
  return 1
}
module() {
  command -v modprobe >/dev/null || { [ -d "/sys/module/$2" ] && return 0; }
  modprobe "$1"
}
mounted() {
  while read -r _ where kind _; do
    if [ "$where $kind" = "$2 $1" ]; then return 0; fi
  done </proc/mounts
  return 1
}
mount_at() {
  if mounted "$1" "$3"; then return 0; fi
  [ -d "$3" ] || mkdir -p "$3" || return 1
  mount -t "$1" ${4:+-o "$4"} "$2" "$3"
}
write() {
  [ -e "$1" ] || { echo "there is no \`$1\` here"; return 1; }
  printf '%s\n' "$2" >"$1"
}
# Whether the guest has each image of an archive, by all its names. What cannot be read is not there.
loaded() {
  manifest=$(tar -xOf "$1" manifest.json 2>/dev/null) || return 1
  manifest=$(printf '%s' "$manifest" | tr -d ' \t\r\n')
  case $manifest in *'"Config":"'*) ;; *) return 1 ;; esac
  while :; do
    case $manifest in *'"Config":"'*) ;; *) return 0 ;; esac
    manifest=${manifest#*'"Config":"'}
    config=${manifest%%'"'*}
    id=${config##*/} && id=sha256:${id%.json}
    tags=
    case ${manifest%%'"Config":"'*} in
    *'"RepoTags":['*) tags=${manifest#*'"RepoTags":['} && tags=$(printf '%s' "${tags%%]*}" | tr -d '"' | tr , ' ') ;;
    esac
    for name in ${tags:-"$id"}; do
      [ "$(docker image inspect -f '{{.Id}}' "$name" 2>/dev/null)" = "$id" ] || return 1
    done
  done
}
images() {
  cd "$root" && program docker || return 1
  docker info >/dev/null 2>&1 || systemctl start docker 2>/dev/null || service docker start >/dev/null 2>&1
  found=
  for archive in $1; do
    [ -f "$archive" ] || continue
    found=yes
    loaded "$archive" || docker load -q -i "$archive" || return 1
  done
  [ -n "$found" ] || { echo "no archive matches \`$1\` in $root"; return 1; }
}
# A script of the repository; what it exports is told at the end.
script() {
  cd "$root" || return 1
  [ -f "$1" ] || { echo "there is no \`$1\` in $root"; return 1; }
  : >>"$exports" || return 1
  case $1 in /*) file=$1 ;; *) file=./$1 ;; esac
  if [ -x "$file" ]; then KMT_ENV=$exports "$file" </dev/null; else KMT_ENV=$exports sh "$file" </dev/null; fi
}
# A container for the tests, which stays as long as it is made of the same: its image, its engine, its volumes and its
# options. The component is a link to a folder that goes with the next one.
container() {
  program "$2" || return 1
  "$2" info >/dev/null 2>&1 || systemctl start "$2" 2>/dev/null || service "$2" start >/dev/null 2>&1
  tree=$(readlink "$root") || tree=$root
  image=$("$2" image inspect -f '{{.Id}}' "$1" 2>/dev/null) || {
    words=$("$2" pull --quiet "$1" 2>&1) && image=$("$2" image inspect -f '{{.Id}}' "$1") || {
      echo "image \`$1\` is not in the guest, and does not come: $(printf '%s' "$words" | tail -n 1)"
      return 1
    }
  }
  made=$(printf '%s\n' "$image" "$tree" "$3" "$4" | cksum)
  [ "$("$2" inspect -f '{{.State.Running}} {{index .Config.Labels "kmt-run"}}' kmt-tests 2>/dev/null)" = "true $made" ] && return 0
  "$2" rm --force kmt-tests >/dev/null 2>&1
  engine=$2 name=$1 volumes=$3 options=$4
  before=$IFS
  IFS=$(printf '\037') && set -f
  set -- --volume "$root:$root"
  for volume in $volumes; do
    [ ! -e "${volume%%:*}" ] || set -- "$@" --volume "$volume"
  done
  for option in $options; do set -- "$@" "$option"; done
  set +f
  IFS=$before
  "$engine" run --detach --name kmt-tests --label "kmt-run=$made" "$@" --entrypoint sleep "$name" infinity
}
# What the kernel does not tell of itself, the tests look for in an archive.
btf() {
  archive=$root/$1/co-re/btf/minimized-btfs.tar.xz
  if [ -e /sys/kernel/btf/vmlinux ] || [ -e "$archive" ] || [ ! -d "$2" ]; then return 0; fi
  mkdir -p "${archive%/*}" && tar -C "$2" -cJf "$archive.new" . && mv -f "$archive.new" "$archive"
}

say begun ''
while next; do
  kind=$value
  next && a=$value
  next && b=$value
  next && c=$value
  next && d=$value
  case $kind in
  program | package | module | mount_at | write | images | script | container | btf) ;;
  *) say failed "there is no step \`$kind\`"; exit 0 ;;
  esac
  if words=$("$kind" "$a" "$b" "$c" "$d" 2>&1); then
    say ok ''
  else
    rm -f "$exports"
    say failed "$(printf '%s' "$words" | tail -n 1)"
    exit 0
  fi
done
if [ -e "$exports" ]; then
  while IFS= read -r line || [ -n "$line" ]; do
    if [ -n "$line" ]; then say env "$line"; fi
  done <"$exports"
  rm -f "$exports"
fi
