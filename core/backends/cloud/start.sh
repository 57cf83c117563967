# @about@
# shellcheck disable=SC2317,SC2034  # traps call what nothing else does

scratch=${TMPDIR:-/tmp}/tunedeck/@run_id@
code=$scratch/code site=$scratch/site
run_dir=@run_dir@
keep_dir=@keep_dir@
rank=0
export TUNEDECK_CONFIG=$run_dir/config.yaml
@exports@

run_the_step() {
@command@
}

main() {
  started_at=$(date +%s)
  trap end EXIT
  trap stop_asked TERM INT
  set -e
  mkdir -p "$scratch" "$run_dir"
  cd "$run_dir"
@rendezvous@
  if [ "$rank" = 0 ]; then rm -f exit.json exit_code; fi
  write_files
@code@
  go_on_from_checkpoint
@startup@
  set +e
@deadline@
  trap '' USR1 # until the run listens for it itself; torchrun never does
  run_the_step &
  step=$!
  keep_now_and_then > /dev/null 2>&1 & # ends by itself: killed at its start, it ran our traps
  interrupted=1
  while [ "$interrupted" = 1 ]; do
    interrupted=0
    wait "$step"
    status=$?
  done
  exit "$status"
}

write_files() {
@files@
}

# A job that the service starts again goes on from what it kept; one that was told to resume, from
# what the other run kept. Where links cannot be kept, `latest` is a file with the name in it.
go_on_from_checkpoint() {
  local kept=${keep_dir:-$run_dir}/checkpoints/latest
  if [ -e "$kept" ] && [ -e resume.yaml ]; then
    echo "tunedeck: goes on from the last checkpoint"
    TUNEDECK_CONFIG=$run_dir/resume.yaml
  else
    kept=@restore@
  fi
  if [ -n "$kept" ]; then
    if [ -e "$kept/checkpoints/latest" ]; then kept=$kept/checkpoints; fi
    if [ -e "$kept/latest" ]; then kept=$kept/latest; fi
    if [ -f "$kept" ]; then kept=$(dirname "$kept")/$(cat "$kept"); fi
    if [ ! -d "$kept" ]; then
      echo "tunedeck: error: there is no checkpoint at $kept"
      exit 2
    fi
    ln -sfn "$kept" "$scratch/restored"
  fi
}

# The run is asked to save and end. Its processes are told, and told again until they listen.
stop_asked() {
  interrupted=1
  if [ -z "$asked" ] && [ -n "$step" ]; then
    asked=1
    echo "tunedeck: the job is about to be ended; the run is asked to save"
    while sleep 1 && kill -0 "$step"; do
      tell "$step"
    done > /dev/null 2>&1 &
  elif [ -z "$step" ]; then
    exit 143
  fi
}

tell() {
@tell@
}

# Copies what is whole to the place that outlives the job: checkpoints as they are published, and at
# the end everything. The storage may know neither links nor renaming.
keep_checkpoints() {
  local path name
  [ "$rank" = 0 ] && [ -n "$keep_dir" ] && [ -d checkpoints ] || return 0
  mkdir -p "$keep_dir/checkpoints" || return 1
  for path in checkpoints/step_*; do
    name=${path##*/}
    case $name in *.*) continue ;; esac # is being written, or removed
    if [ ! -d "$path" ] || [ -e "$keep_dir/$path/.kept" ]; then continue; fi
    cp -R "$path" "$keep_dir/checkpoints/" && : > "$keep_dir/$path/.kept" || return 1
  done
  for name in latest best; do
    [ -L "checkpoints/$name" ] || continue
    path=$(readlink "checkpoints/$name")
    [ ! -e "$keep_dir/checkpoints/$path/.kept" ] || printf %s "$path" > "$keep_dir/checkpoints/$name"
  done
  [ -e "$keep_dir/checkpoints/latest" ] || return 0
  for path in "$keep_dir"/checkpoints/step_*; do
    name=${path##*/}
    case " $(cd "$keep_dir/checkpoints" && tail -n +1 -q latest best 2> /dev/null) " in
      *"$name"*) continue ;;
    esac
    if [ -d "$path" ] && [ ! -d "checkpoints/$name" ]; then rm -rf "$path"; fi
  done
}

keep_now_and_then() {
  while sleep @keep_pace@ && [ -e "$scratch" ]; do
    keep_checkpoints
  done
}

keep_all() {
  local path
  [ "$rank" = 0 ] && [ -n "$keep_dir" ] || return 0
  mkdir -p "$keep_dir" || return 1
  keep_checkpoints || return 1
  for path in *; do
    case $path in checkpoints | result.json) continue ;; esac
    if [ -e "$path" ]; then cp -R "$path" "$keep_dir/" || return 1; fi
  done
  # What the run made is to be found where it was kept.
  if [ -e result.json ]; then sed "s|$run_dir|$keep_dir|g" result.json > "$keep_dir/result.json"; fi
}

# The last word, whatever ended the job: the exit code in the log and in a file.
end() {
  local code=$? meant
  set +e
  trap '' TERM INT
  if [ "$code" != 0 ] && [ -s exit_code ]; then
    meant=$(cat exit_code)
    if [ "$meant" != 0 ]; then code=$meant; fi
  fi
@deliver@
  if [ "$rank" = 0 ]; then
    printf '{"exit_code": %d, "started_at": %d, "ended_at": %d}\n' \
      "$code" "$started_at" "$(date +%s)" > exit.json
  fi
  if ! keep_all; then
    echo "tunedeck: error: what the run made could not be kept in $keep_dir"
    [ "$code" != 0 ] || code=1
  fi
  rm -rf "$scratch"
  echo "tunedeck: exit=$code"
  exit "$code"
}

main
