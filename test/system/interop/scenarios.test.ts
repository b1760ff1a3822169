/**
 * Typical use of a pair of daemons, with daemons that really go into the background, and with either implementation on
 * either side.
 */
import { expect, it } from "vitest";
import { inNamespace } from "../../support/recipes.ts";
import { describeIfInstalled } from "../../support/requirements.ts";

const IPV4 = ["[127.0.0.1]:8001", "[127.0.0.1]:8002", "[127.0.0.1]:8003"];
const IPV6 = ["[::1]:8001", "[::1]:8002", "[::1]:8003"];
const UNIX = ["$PWD/source", "$PWD/middle", "$PWD/target"];
const CASES = [
  { encrypting: "./spiped", decrypting: "./spiped", sockets: IPV6, over: "IPv6" },
  { encrypting: "./spiped", decrypting: "./spiped", sockets: UNIX, over: "UNIX sockets" },
  { encrypting: "./spiped", decrypting: "/usr/bin/spiped", sockets: IPV4, over: "IPv4" },
  { encrypting: "/usr/bin/spiped", decrypting: "./spiped", sockets: IPV4, over: "IPv4" },
];

describeIfInstalled(
  "root",
  "unshare",
  "ip",
  "ss",
  "socat",
  "spiped",
  "pv",
  "ps",
)("daemons in the background", () => {
  it.each(CASES)(
    "$encrypting -e to $decrypting -d over $over",
    { timeout: 180_000 },
    async ({ encrypting, decrypting, sockets: [source, middle, target] }) => {
      const output = await inNamespace(`
      place() { case $1 in /*) echo "UNIX-$2:$1";; "[:"*) echo "TCP6-$2:$1";; *) echo "TCP-$2:$1" | tr -d [];; esac; }
      bind() { case $1 in /*) place $1 LISTEN;; "[:"*) echo "TCP6-LISTEN:\${1##*:},bind=[::1],reuseaddr";; *) echo "TCP-LISTEN:\${1##*:},bind=127.0.0.1,reuseaddr";; esac; }
      bound() { case $1 in /*) until ss -lxH "src = unix:$1" | grep -q .; do sleep 0.02; done;; *) listening \${1##*:};; esac; }
      ${encrypting} -e -s "${source}" -t "${middle}" -k spiped.key -o 3 -p e.pid
      ${decrypting} -d -s "${middle}" -t "${target}" -k spiped.key -o 3 -p d.pid
      e=$(cat e.pid); d=$(cat d.pid)
      ps -o args= -p $e | grep -qF "spiped -e -s ${source} -t ${middle}"
      ps -o args= -p $d | grep -qF "spiped -d -s ${middle} -t ${target}"

      echo one line, received by a server that stops after it
      socat -u "$(bind "${target}")" CREATE:line & server=$!
      until echo hello | socat -u - "$(place "${source}" CONNECT)" && sleep 0.1 && test -s line; do sleep 0.05; done
      wait $server
      test "$(cat line)" = hello

      socat "$(bind "${target}"),fork" EXEC:cat & server=$!
      bound "${target}"
      echo a connection that is held for longer than -o 3
      test "$( (sleep 3.3; echo late) | socat -t 60 - "$(place "${source}" CONNECT)")" = late

      echo two connections, the first of which ends first
      (echo first; sleep 0.3) | socat -t 60 - "$(place "${source}" CONNECT)" > first & one=$!
      (sleep 0.1; echo second; sleep 0.5) | socat -t 60 - "$(place "${source}" CONNECT)" > second & two=$!
      wait $one; wait $two
      test "$(cat first second)" = "first
second"

      echo a file, through the pair and by spipe
      head -c 3000000 /dev/urandom > file
      socat -t 60 - "$(place "${source}" CONNECT)" < file | cmp - file
      ./spipe -t "${middle}" -k spiped.key < file | cmp - file
      kill $server; wait $server || true

      echo a slow answer after a half-close
      rm -f target
      socat "$(bind "${target}")" SYSTEM:'cat > slow.in; pv -q -L 20000 slow.in' & server=$!
      bound "${target}"
      head -c 10000 file | ./spipe -t "${middle}" -k spiped.key | cmp - <(head -c 10000 file)

      echo idle daemons end at SIGTERM
      kill $e $d
      while kill -0 $e 2>/dev/null || kill -0 $d 2>/dev/null; do sleep 0.05; done
      status=0; ./spipe -t $PWD/nowhere -k spiped.key < /dev/null || status=$?
      test $status = 1
      echo all done
    `);
      expect(output).toMatch(/all done\n$/);
    },
  );
});
