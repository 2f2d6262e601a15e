# What the scripts here share. Settings: the environment, then deploy/.env, then the defaults below.
# shellcheck shell=sh

set -eu
deploy=$(cd "$(dirname "$0")" && pwd)
# shellcheck disable=SC2034 # The scripts use it.
workspace=$(dirname "$deploy")

die() { echo "deploy: $*" >&2; exit 1; }

# The names that deploy/.env may set; env.example says what each is.
settings='COMPOSE_PROJECT_NAME SLICE_IMAGE NFS_ADDRESS NFS_PORT STATUS_ADDRESS STATUS_PORT DIRSERVERS SMALLFILES BLOCKSTORES POLICY ROOT_OWNER ROOT_MODE PROXY_FLAGS RUST_LOG'
# hosts.env.example: those of docker-compose.hosts.yml.
settings="$settings COMPOSE_PROFILES ADDRESS COORDINATOR IDENTITY METRICS_ADDRESS DIRSERVER_PORT SMALLFILE_PORT BLOCKSTORE_PORT"

if [ -f "$deploy/.env" ]; then
  while IFS= read -r line || [ -n "$line" ]; do
    case $line in '' | '#'*) continue ;; esac
    name=${line%%=*}
    case " $settings " in *" $name "*) ;; *) die "deploy/.env sets $name, which is none of: $settings" ;; esac
    # The environment wins; set but empty counts.
    if ! printenv "$name" >/dev/null; then export "$name=${line#*=}"; fi
  done <"$deploy/.env"
fi

: "${COMPOSE_PROJECT_NAME:=slice}" "${SLICE_IMAGE:=slice:local}" "${NFS_ADDRESS:=0.0.0.0}" "${NFS_PORT:=2049}" "${STATUS_ADDRESS:=127.0.0.1}" "${STATUS_PORT:=9049}"
: "${DIRSERVERS:=2}" "${SMALLFILES:=2}" "${BLOCKSTORES:=4}"
export COMPOSE_PROJECT_NAME SLICE_IMAGE NFS_ADDRESS NFS_PORT STATUS_ADDRESS STATUS_PORT DIRSERVERS SMALLFILES BLOCKSTORES

for name in DIRSERVERS SMALLFILES BLOCKSTORES; do
  value=$(printenv "$name")
  case $value in '' | 0* | *[!0-9]* | ????*) die "$name=$value: give a number of servers, 1 to 256" ;; esac
  [ "$value" -le 256 ] || die "$name=$value: an ensemble has at most 256 servers of a role"
done

# The compose file of this size: the one in the repository, or one rendered beside it.
compose_file() {
  if [ "$DIRSERVERS $SMALLFILES $BLOCKSTORES" = '2 2 4' ]; then
    echo "$deploy/docker-compose.yml"
  else
    file=$deploy/.rendered-$COMPOSE_PROJECT_NAME.yml
    "$deploy/render" >"$file.$$.tmp"
    mv "$file.$$.tmp" "$file"
    echo "$file"
  fi
}

# compose [--hosts] ARGUMENTS...: docker compose, or docker-compose where that is not installed; --hosts: on docker-compose.hosts.yml.
compose() {
  if [ "${1-}" = --hosts ]; then
    file=$deploy/docker-compose.hosts.yml
    shift
  else
    file=$(compose_file)
  fi
  set -- --project-directory "$deploy" --project-name "$COMPOSE_PROJECT_NAME" --file "$file" "$@"
  if docker compose version >/dev/null 2>&1; then
    docker compose "$@"
  elif command -v docker-compose >/dev/null; then
    docker-compose "$@"
  else
    die 'neither "docker compose" nor docker-compose is here: install docker-compose'
  fi
}

# The services that keep data, coordinator first.
stores() {
  echo coordinator
  for role in dirserver:$DIRSERVERS smallfile:$SMALLFILES blockstore:$BLOCKSTORES; do
    i=1
    while [ $i -le "${role#*:}" ]; do
      echo "${role%:*}-$i"
      i=$((i + 1))
    done
  done
}
