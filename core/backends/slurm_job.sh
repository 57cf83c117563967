#!/bin/bash
@options@

# @about@
# shellcheck disable=SC2317  # traps call what nothing else does

run_dir=@run_dir@
secrets=$run_dir/secrets.sh
export TUNEDECK_CONFIG=$run_dir/config.yaml
max_requeues=@max_requeues@
attempt=${SLURM_RESTART_COUNT:-0}
@resume@
@exports@

run_the_step() {
@command@
}

# What one node does, inside the container where there is one. The first node writes to the job's
# log; each other one has a log of its own, whose end is shown if it fails.
on_each_node() {
  local command code watcher
  cd "$run_dir" || exit 1
  exec 3>&1
  if [ "$SLURM_NODEID" != 0 ]; then
    exec >> "node_$SLURM_NODEID.txt" 2>&1
    trap 'show_end $?' EXIT
  fi
  set -e
@startup@
  set +e
  trap '' USR1 # until the run listens for it itself; torchrun never does
  run_the_step &
  command=$!
  pass_on_the_wish_to_stop "$command" &
  watcher=$!
  wait "$command"
  code=$?
  kill "$watcher" 2> /dev/null
  exit "$code"
}

# The processes of the run are told until they have heard it. A file and not a signal of Slurm's,
# which would reach every process of the step: torchrun would die of it and leave its ranks.
pass_on_the_wish_to_stop() {
  while sleep 1; do
    if [ -s stop ]; then
@tell@
    fi
  done
}

show_end() {
  [ "$1" != 0 ] || return
  {
    echo "tunedeck: node $SLURM_NODEID ($(hostname)) ended with $1; the end of its log:"
    tail -n 20 "node_$SLURM_NODEID.txt"
  } >&3
}

# What the first node does, outside any container.
main() {
  started_at=$(date +%s)
  terminated=0
  cd "$run_dir" || exit 1
  rm -f exit.json exit_code
  : > stop
  printf '%512s' '' > .exit.reserved # so that the last word fits on a disk that is full
  trap end EXIT
  trap near_the_end @signals@
  trap 'terminated=1; near_the_end' TERM

  if [ "$attempt" -gt "$max_requeues" ]; then
    echo "tunedeck: error: the job was queued again more than $max_requeues time(s)"
    exit 75
  fi
  set -e
@setup@
  set +e
  if [ -r "$secrets" ]; then
    set +x
    # shellcheck source=/dev/null
    . "$secrets"
  fi
  find_each_other
  know_the_deadline
  if [ -n "${SLURM_CPUS_PER_TASK:-}" ]; then export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK; fi

  srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --kill-on-bad-exit=1 @srun@ \
    @container@bash "$run_dir/job.sh" node &
  local step=$! code=0
  interrupted=1
  while [ "$interrupted" = 1 ]; do
    interrupted=0
    wait "$step"
    code=$?
  done
  exit "$code"
}

# The address of this node, which every node can reach, and a port that follows from the job.
find_each_other() {
  MASTER_ADDR=$(hostname -I 2> /dev/null | tr ' ' '\n' | grep -E '^[0-9]+\.' |
    grep -vE '^(127|169\.254)\.' | head -n 1)
  MASTER_ADDR=${MASTER_ADDR:-${SLURMD_NODENAME:-$(hostname)}}
  if [ -z "$MASTER_ADDR" ]; then
    echo "tunedeck: error: the address of this node cannot be found out"
    exit 1
  fi
  MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
  export MASTER_ADDR MASTER_PORT
  # torchrun takes its options from the environment as well; these are known only here.
  export PET_RDZV_ENDPOINT="$MASTER_ADDR:$MASTER_PORT" PET_RDZV_ID="$SLURM_JOB_ID.$attempt"
}

# Unix seconds by which the run must have saved, ten seconds before Slurm begins to end it.
know_the_deadline() {
  local ends=${SLURM_JOB_END_TIME:-}
  [ -n "$ends" ] || ends=$(SLURM_TIME_FORMAT=%s squeue -h -j "$SLURM_JOB_ID" -o %e)
  case $ends in
    '' | *[!0-9]*) ;; # without a limit
    *) export TUNEDECK_DEADLINE=$((ends - 10)) ;;
  esac
}

near_the_end() {
  interrupted=1
  if [ ! -s stop ]; then
    echo "tunedeck: the job is about to be ended; the run is asked to save"
    echo save > stop
  fi
}

# The last word, whatever ended the job: queued again, or the exit code in the log and in a file.
end() {
  local code=$? meant
  trap '' @signals@ TERM
  if [ "$code" != 0 ] && [ -s exit_code ]; then
    meant=$(cat exit_code)
    if [ "$meant" != 0 ]; then code=$meant; fi
  fi
  if [ "$code" = 75 ] && [ "$terminated" = 0 ] && [ "$attempt" -lt "$max_requeues" ]; then
    echo "tunedeck: queued again to go on, $((attempt + 1)) of at most $max_requeues time(s)"
    if scontrol requeue "$SLURM_JOB_ID"; then exit 0; fi
    echo "tunedeck: warning: this site does not let a job queue itself again"
  fi
  # A job that is preempted still counts as running, and will want them when it starts again.
  if [ "$terminated" = 0 ] || [ "$(squeue -h -j "$SLURM_JOB_ID" -o %T)" != RUNNING ]; then
    rm -f "$secrets"
  fi
  echo "tunedeck: exit=$code"
  printf '{"exit_code": %d, "started_at": %d, "ended_at": %d, "terminated": %d, "attempt": %d}' \
    "$code" "$started_at" "$(date +%s)" "$terminated" "$attempt" |
    dd of=.exit.reserved conv=notrunc,fsync status=none && mv .exit.reserved exit.json
  exit "$code"
}

if [ "${1:-}" = node ]; then on_each_node; else main; fi
