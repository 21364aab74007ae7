#!/bin/sh
# Makes the stack's secrets at its first start, each random and in a file of its own, so that nothing
# secret stands in the repository, in an image or in an environment. Those that are there stay.
#
#     secrets.sh FOLDER GRAFANA_FOLDER
#
# The files belong to user and group 10001 (the processes of ours); the server and Grafana may read
# what is theirs as members of that group.
set -eu
umask 077
folder=$1 grafana=$2

random() {
  head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n'
}

own() { # in the stack this runs as root; elsewhere the files are their maker's
  [ "$(id -u)" != 0 ] || chown 10001:10001 "$@"
}

keep() { # keep FILE TEXT: only where there is none yet, and never half of it
  [ -s "$1" ] && return
  printf '%s\n' "$2" > "$1.new"
  own "$1.new"
  chmod 0440 "$1.new"
  mv "$1.new" "$1"
}

own "$folder" "$grafana"
chmod 0750 "$folder" "$grafana"
keep "$folder/redis_password" "$(random)"
password=$(cat "$folder/redis_password")
keep "$folder/valkey.conf" "requirepass $password"
keep "$folder/redis_url" "redis://:$password@valkey:6379/0"
keep "$folder/api_keys" "dashboard:$(random)"
keep "$folder/dashboard_password" "$(random)"
keep "$grafana/grafana_password" "$(random)"
echo "the secrets are there"
