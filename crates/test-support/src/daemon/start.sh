#!/bin/sh
# Notes this process (its id and start time) in the file $1 and becomes the command that follows.
record=$1
shift
started() { # the 20th field after the name in brackets
  # shellcheck disable=SC2086 # fields are words
  set -- ${1##*) }
  echo "${20}"
}
if [ -r "/proc/$$/stat" ] && read -r stat <"/proc/$$/stat"; then
  echo "$$ $(started "$stat")" >"$record"
fi
exec "$@"
