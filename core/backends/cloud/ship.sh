# Sends files of a run home through this job's log. Written by tunedeck.
set -u
say() { echo "tunedeck: $*"; }
fail() {
  say "error: $*"
  say exit=1
  exit 1
}

# The files that fit the patterns and are not over there yet. As in a shell's glob, a star stays
# within one folder; a folder that is named itself is meant with all that is in it.
fitting() {
  local IFS=$'\n' pattern path
  for pattern in $TUNEDECK_WANTED; do
    for path in $pattern; do
      if [ -f "$path" ]; then
        echo "$path"
      elif [ "$path" = "$pattern" ] && [ -d "$path" ]; then
        find -L "$path" -type f
      fi
    done
  done | sort -u | while read -r path; do
    if ! grep -qxF -- "$(sha256sum < "$path" | cut -d ' ' -f 1) $path" <<< "$TUNEDECK_HERE"; then
      echo "$path"
    fi
  done
}

cd "$TUNEDECK_RUN" 2> /dev/null || fail "there is no folder $TUNEDECK_RUN on the storage"
disk=$(mktemp -d) || fail "this job has no room for temporary files"
trap 'rm -rf "$disk"' EXIT
fitting > "$disk/names"
sum=0
while read -r path; do
  size=$(wc -c < "$path" | tr -d ' ')
  sum=$((sum + size))
  say "file $size $path"
done < "$disk/names"
if [ -s "$disk/names" ] && [ "$sum" -le "$TUNEDECK_LIMIT" ]; then
  tar -chf "$disk/whole" -T "$disk/names" || fail "the files could not be read"
  say "whole $(wc -c < "$disk/whole" | tr -d ' ') $(sha256sum < "$disk/whole" | cut -d ' ' -f 1)"
  number=0
  # No faster than log services take it.
  tail -c "+$((TUNEDECK_PART * TUNEDECK_PART_BYTES + 1))" "$disk/whole" |
    head -c "$TUNEDECK_PART_BYTES" | base64 -w 8192 | while read -r line; do
    number=$((number + 1))
    say "data $number $line"
    if [ $((number % 64)) = 0 ]; then sleep 0.2; fi
  done
fi
say exit=0
