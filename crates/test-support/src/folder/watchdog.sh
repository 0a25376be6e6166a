#!/bin/sh
# Waits until the other end of standard input is gone, then ends the servers in the folder $1 and removes it.
root=$1
while read -r _; do :; done
[ -e "$root/live" ] || exit 0

ours() { # sets pid from file $1; fails unless that process is there with the start time noted beside it
  read -r pid started 2>/dev/null <"$1" && [ -n "$started" ] || return 1
  [ -d /proc/self ] || return 0
  read -r stat 2>/dev/null <"/proc/$pid/stat" || return 1
  # shellcheck disable=SC2086 # the fields after the name in brackets, as words: the 20th is the start time
  set -- ${stat##*) }
  [ "$1" != Z ] && [ "${20}" = "$started" ]
}
each() { # sends signal $1 to every server; fails when there was none
  found=1
  for file in "$root"/run/*.pid; do
    ours "$file" && kill "-$1" "$pid" 2>/dev/null && found=0
  done
  return "$found"
}

each QUIT
each CONT
tries=0
while each 0 && [ "$tries" -lt 50 ]; do
  sleep 0.1
  tries=$((tries + 1))
done
each KILL
rm -rf "$root"
