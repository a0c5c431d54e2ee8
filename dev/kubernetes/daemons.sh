# Sourced by dev/engine, dev/cluster and dev/kwok: processes that outlive the terminal. $state is the directory they belong to, with run/NAME.pid ("pid start-time", because the pid alone may belong to another process by now) and log/NAME.log.

# When a process began, in ticks since the machine did; nothing if it is gone, or dead and not yet collected.
born() {
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 0
  # The name in brackets may contain anything; behind it: state, parent, …, and the start as the twentieth.
  read -r -a stat <<<"${stat##*) }"
  [ "${stat[0]}" = Z ] || echo "${stat[19]}"
}

running() {
  local pid since
  read -r pid since 2>/dev/null <"$state/run/$1.pid" && [ -n "$since" ] && [ "$(born "$pid")" = "$since" ]
}

# start NAME COMMAND...: unless it runs.
start() {
  local name=$1
  shift
  running "$name" && return
  # Descriptor 9 is the lock of the script that starts it. A test that restarts it has directories that are removed.
  nohup setsid env -u TMPDIR -u XDG_STATE_HOME "$@" >>"$state/log/$name.log" 2>&1 </dev/null 9>&- &
  echo "$! $(born $!)" >"$state/run/$name.pid"
  disown $!
}

# stop NAME [SIGNAL [SECONDS]]: returns when it is gone; what does not go within them (2) is killed.
stop() {
  local pid waited=0 patience=${3:-2}
  running "$1" || return 0
  read -r pid _ <"$state/run/$1.pid"
  kill -s "${2:-KILL}" "$pid" 2>/dev/null || true
  while running "$1"; do
    [ $((waited += 1)) != $((patience * 20)) ] || kill -s KILL "$pid" 2>/dev/null || true
    sleep 0.05
  done
  rm -f "$state/run/$1.pid"
}

# appears NAME COMMAND...: whether the command succeeds within a minute. A process that died meanwhile ends the waiting.
appears() {
  local name=$1 until=$((SECONDS + 60))
  shift
  while [ "$SECONDS" -lt "$until" ]; do
    "$@" >/dev/null 2>&1 && return
    running "$name" || return
    sleep 0.1
  done
  return 1
}

# await NAME COMMAND...: until the command succeeds; fails with the last output of the process.
await() {
  appears "$@" && return
  tail -n 5 "$state/log/$1.log" >&2
  give_up "$1 does not start: the lines above are the end of $state/log/$1.log"
}
