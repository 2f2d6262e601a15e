# What a guest's script may call. The host reads these lines; the nonce keeps a program's own output from passing for one.

# mark NAME STATUS [TEXT]: a result for the host. A status other than 0 fails the test.
mark() { mark_name=$1; mark_rc=$2; shift 2; printf '\n@@%s %s %s %s\n' "$NONCE" "$mark_name" "$mark_rc" "$*" >&3; }

# step NAME COMMAND...: runs the command and reports its status, with the seconds it took.
# The command stands alone on its line: in a condition, a "set -e" inside it would mean nothing. So does "step" itself
# before || or &&: put only plain programs there.
step() {
  step_name=$1; shift
  step_from=$(cut -d' ' -f1 /proc/uptime)
  "$@"
  step_rc=$?
  mark "$step_name" $step_rc "$(echo "$(cut -d' ' -f1 /proc/uptime) $step_from" | awk '{printf "%.1f s", $1 - $2}')"
  return $step_rc
}

# await_host: waits for a line from the host and prints it.
await_host() { read -r reply <&3; echo "$reply"; }

# mount_again: mounts the first mount anew, with nothing of it in any cache.
mount_again() { read -r again_place again_export again_options </guest/mounts; mount.nfs 10.0.2.2:$again_export $again_place -o "$again_options"; }
