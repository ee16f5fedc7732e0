mkdir -p "$1"
for name in bind skipped dies; do
  echo "CC $name"
  cp "$name.sh" "$1/$name" && chmod +x "$1/$name"
done
