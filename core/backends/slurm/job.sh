#!/bin/bash
@options@

# @about@
# shellcheck disable=SC2317  # traps call what nothing else does

base=@run_dir@
run_dir=@own_dir@
secrets=$base/secrets.sh
export TUNEDECK_CONFIG=$base/config.yaml
max_requeues=@max_requeues@
attempt=${SLURM_RESTART_COUNT:-0}
@resume@
@exports@
export TUNEDECK_RUN_DIR=$run_dir TUNEDECK_EXIT_FILE=$run_dir/exit_code
export TUNEDECK_DEADLINE_FILE=$run_dir/deadline

run_the_step() {
@command@
}

# What one node does, inside the container where there is one. The first node writes to the job's
# log; each other one has a log of its own, whose end is shown if it fails.
on_each_node() {
  local command code watcher
  cd "$run_dir" || exit 1
  : > .begun
  exec 3>&1 2>&1 # srun's stderr is left to what srun says itself
  if [ "$SLURM_NODEID" != 0 ]; then
    exec >> "node_$SLURM_NODEID.txt" 2>&1
    trap 'show_end $?' EXIT
  fi
  # torchrun's static rendezvous: rank 0 is on the first node, whose log is the job's. Its c10d would
  # number the nodes by their addresses, and look for the first by a name that may not resolve.
  export PET_NODE_RANK=$SLURM_NODEID
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
  # Of the nodes that fail the first counts; srun tells the highest code, which is of one it killed.
  [ "$code" = 0 ] || (set -C && echo "$code" > .failed) 2> /dev/null
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
  noticing=''
  cd "$run_dir" || exit 1
  rm -f exit.json exit_code .failed deadline
  : > stop
  scratch=$(mktemp -d 2> /dev/null || mktemp -d -p "$run_dir") || exit 1
  mkfifo "$scratch/pipe"
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

  rm -f .begun
  run_on_all_nodes
  local code=$? tries=5
  while [ "$code" != 0 ] && [ ! -e .begun ] && [ ! -s stop ] && [ "$tries" -gt 0 ] &&
    is_away < "$scratch/srun"; do
    tries=$((tries - 1))
    echo "tunedeck: Slurm's controller was away as the step was to begin; starting it again"
    ask_slurm squeue -h -j "$SLURM_JOB_ID" -o %T > /dev/null
    run_on_all_nodes --overlap # whatever the first try has left behind
    code=$?
  done
  exit "$code"
}

# One task a node. What srun itself says goes to the log, and is kept to tell why it failed.
run_on_all_nodes() {
  local step teller code=0
  (trap '' TERM @signals@ && exec tee "$scratch/srun" < "$scratch/pipe") &
  teller=$!
  srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --kill-on-bad-exit=1 "$@" @srun@ \
    @container@bash "$base/job.sh" node 2> "$scratch/pipe" &
  step=$!
  interrupted=1
  while [ "$interrupted" = 1 ]; do
    interrupted=0
    wait "$step"
    code=$?
  done
  wait "$teller"
  return "$code"
}

# Slurm's controller may be away for a while (an upgrade, a failover), and jobs go on without it.
# A command of Slurm's is run again until it answers, for ten minutes at most; there is no time for
# that once the job is being killed.
ask_slurm() {
  local said code until=$((SECONDS + 600)) waiting=0
  while true; do
    said=$("$@" 2>&1)
    code=$?
    if [ "$code" = 0 ] || [ "$terminated" = 1 ] || [ "$SECONDS" -gt "$until" ]; then break; fi
    if ! is_away <<< "$said"; then break; fi
    if [ "$waiting" = 0 ]; then
      waiting=1
      echo "tunedeck: Slurm's controller does not answer; waiting for it" >&2
    fi
    sleep 3
  done
  [ -z "$said" ] || echo "$said"
  return "$code"
}

is_away() {
  grep -qiE 'contact slurm controller|controller is not responding|socket timed out|zero bytes|connection (refused|timed out)'
}

# The nodes of this job that do not answer any more, by srun's word or by the controller's.
lost_nodes() {
  local index
  {
    if [ -e "$scratch/srun" ]; then
      sed -n -e 's/.*Node failure on \([^ ]*\).*/\1/p' \
        -e 's/.*failed on node \([^ :]*\): .*\(onnection\|ommunicat\|imed out\|route\).*/\1/p' "$scratch/srun"
      sed -n 's/.*io error with slurmstepd on node \([0-9]*\).*/\1/p' "$scratch/srun" |
        while read -r index; do
          scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n "$((index + 1))p"
        done
    fi
    timeout 5 sinfo -h -N -n "$SLURM_JOB_NODELIST" -o '%N %T' 2> /dev/null |
      awk '$2 ~ /[*]$|^down|^error|^unknown/ { print $1 }'
  } | sort -u | paste -sd , -
}

# Slurm may have queued the job again itself, for a node that it has lost.
queue_again() {
  ask_slurm scontrol requeue "$SLURM_JOB_ID" ||
    [ "$(timeout 5 squeue -h -j "$SLURM_JOB_ID" -o %T)" = PENDING ]
}

# The address of this node, which every node can reach, and a port that follows from the job: the
# next one on which nothing listens yet.
find_each_other() {
  MASTER_ADDR=$(hostname -I 2> /dev/null | tr ' ' '\n' | grep -E '^[0-9]+\.' |
    grep -vE '^(127|169\.254)\.' | head -n 1)
  MASTER_ADDR=${MASTER_ADDR:-${SLURMD_NODENAME:-$(hostname)}}
  if [ -z "$MASTER_ADDR" ]; then
    echo "tunedeck: error: the address of this node cannot be found out"
    exit 1
  fi
  MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
  while [ -n "$(ss -Hltn "sport = :$MASTER_PORT" 2> /dev/null)" ]; do
    MASTER_PORT=$((MASTER_PORT + 1))
  done
  export MASTER_ADDR MASTER_PORT
  # torchrun takes its options from the environment as well; these are known only here.
  export PET_MASTER_ADDR=$MASTER_ADDR PET_MASTER_PORT=$MASTER_PORT
  export PET_RDZV_ENDPOINT="$MASTER_ADDR:$MASTER_PORT" PET_RDZV_ID="$SLURM_JOB_ID.$attempt"
}

# Unix seconds by which the run must have saved, ten seconds before Slurm begins to end it.
know_the_deadline() {
  local ends=${SLURM_JOB_END_TIME:-}
  [ -n "$ends" ] ||
    ends=$(SLURM_TIME_FORMAT=%s ask_slurm squeue -h -j "$SLURM_JOB_ID" -o %e | tail -n 1)
  case $ends in
    '' | *[!0-9]*) ;; # without a limit
    *)
      export TUNEDECK_DEADLINE=$((ends - 10))
      notice_another_end "$ends" &
      noticing=$!
      ;;
  esac
}

# The limit of a job that runs may be changed. Slurm is asked ever oftener as the end comes near.
notice_another_end() {
  local ends=$1 pause said
  trap 'kill "$!" 2> /dev/null; exit' TERM
  while true; do
    pause=$(((ends - $(date +%s)) / 10))
    sleep $((pause > 60 ? pause : 60)) &
    wait "$!"
    said=$(SLURM_TIME_FORMAT=%s timeout 30 squeue -h -j "$SLURM_JOB_ID" -o %e 2> /dev/null | tail -n 1)
    case $said in
      '' | "$ends" | *[!0-9]*) ;;
      *) ends=$said && echo $((ends - 10)) > .deadline && mv .deadline deadline ;;
    esac
  done
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
  local code=$? meant lost=''
  trap '' @signals@ TERM
  [ -z "$noticing" ] || kill "$noticing" 2> /dev/null
  if [ "$code" != 0 ]; then
    for meant in exit_code .failed; do
      if [ -s "$meant" ] && [ "$(cat "$meant")" != 0 ]; then
        code=$(cat "$meant")
        break
      fi
    done
    lost=$(lost_nodes)
    [ -z "$lost" ] || echo "tunedeck: error: the job has lost $lost"
  fi
  rm -rf "$scratch"
  if [ "$terminated" = 0 ] && [ "$attempt" -lt "$max_requeues" ] &&
    { [ "$code" = 75 ] || [ -n "$lost" ]; }; then
    echo "tunedeck: queued again to go on, $((attempt + 1)) of at most $max_requeues time(s)"
    if queue_again; then exit 0; fi
    echo "tunedeck: warning: this site does not let a job queue itself again"
  fi
  # Other tasks of an array want them, and a job that Slurm has killed for another one or for a node
  # when it starts again. There the launcher removes them.
  if [ "$base" = "$run_dir" ] && { [ "$terminated" = 0 ] || [ "$attempt" -ge "$max_requeues" ]; }; then
    rm -f "$secrets"
  fi
  echo "tunedeck: exit=$code"
  printf '{"exit_code": %d, "started_at": %d, "ended_at": %d, "terminated": %d, "attempt": %d, "lost": "%s"}' \
    "$code" "$started_at" "$(date +%s)" "$terminated" "$attempt" "$lost" |
    dd of=.exit.reserved conv=notrunc,fsync status=none && mv .exit.reserved exit.json
  exit "$code"
}

if [ "${1:-}" = node ]; then on_each_node; else main; fi
