# Bash completion for spiped and spipe: copy to /usr/share/bash-completion/completions/spiped, and link spipe to it.
_spiped_keys() {
  local directory=${COMP_WORDS[3]} file
  case $COMP_CWORD in
    2) mapfile -t COMPREPLY < <(compgen -W "list show add rotate revoke --help" -- "$current") ;;
    3)
      compopt -o filenames 2>/dev/null
      mapfile -t COMPREPLY < <(compgen -d -- "$current")
      ;;
    *)
      local words="--json"
      if ((COMP_CWORD == 4)); then
        for file in "$directory"/*.key; do
          file=${file##*/}
          case ${COMP_WORDS[2]} in
            show | rotate) words+=" ${file%%.*}" ;;
            revoke) words+=" $file" ;;
          esac
        done
      fi
      mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
      ;;
  esac
}

_spiped() {
  local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} options
  COMPREPLY=()
  if [[ ${COMP_WORDS[0]##*/} == spiped && ${COMP_WORDS[1]} == keys && $COMP_CWORD -gt 1 ]]; then
    _spiped_keys
    return
  fi
  case $previous in
    -k | --key | -p | --pid-file | --config | --metrics-token-file | --generate-key | --check-key)
      compopt -o filenames 2>/dev/null
      mapfile -t COMPREPLY < <(compgen -f -- "$current")
      return
      ;;
    -u | --user | --socket-owner)
      mapfile -t COMPREPLY < <(compgen -u -- "$current")
      return
      ;;
    --send-proxy) options="v1 v2" ;;
    --log-level) options="warn info" ;;
    --log-format) options="text json" ;;
    --workers) options="auto 2 4 8" ;;
    -s | --source | -t | --target | --failover-target | -b | --bind | -n | --max-connections | -o | --timeout | \
      -r | --resolve-interval | --idle-timeout | --allow | --accept-proxy | --penalty-exempt | --socket-mode | --metrics | \
      --metrics-host) return ;;
    *)
      options="--target --key --bind --weak-handshake --require-forward-secrecy --no-keepalive --timeout --version --help"
      case ${COMP_WORDS[0]##*/} in
        spipe) options+=" --fragile --verbose" ;;
        *)
          ((COMP_CWORD == 1)) && [[ $current != -* ]] && options+=" keys"
          options+=" --encrypt --decrypt --source --wait-for-dns --foreground --max-connections --pid-file
            --resolve-interval --no-resolve --syslog --user --failover-target --idle-timeout --allow --accept-proxy
            --send-proxy --penalty-exempt --socket-mode --socket-owner --config --check-config --workers --log-level --log-format
            --metrics --metrics-public --metrics-token-file --metrics-host --generate-key --check-key"
          ;;
      esac
      ;;
  esac
  mapfile -t COMPREPLY < <(compgen -W "$options" -- "$current")
}
complete -F _spiped spiped spipe
