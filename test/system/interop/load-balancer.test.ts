/** PROXY protocol headers with HAProxy in front and nginx as the target, and HAProxy in front of two daemons. */
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { expect, it } from "vitest";
import { inNamespace } from "../../support/recipes.ts";
import { describeIfInstalled } from "../../support/requirements.ts";

/** Returns shell code that starts nginx; it answers with the client address from the PROXY header. */
const startNginx = (port: number) => `
  cat > nginx.conf <<'END'
pid nginx.pid;
error_log nginx.err;
events {}
http {
  access_log access.log;
  client_header_timeout 1h;
  keepalive_timeout 1h;
  server {
    listen 127.0.0.1:${port} proxy_protocol;
    location / { return 200 "you are $proxy_protocol_addr\\n"; }
  }
}
END
  nginx -p $PWD -c $PWD/nginx.conf
  listening ${port}
`;

describeIfInstalled(
  "root",
  "unshare",
  "ip",
  "ss",
  "nginx",
  "haproxy",
  "curl",
  "spiped",
)("the PROXY protocol", () => {
  it.each(["v1", "v2"])("%s passes the client address of a daemon to nginx", async (version) => {
    const output = await inNamespace(`
      ${startNginx(80)}
      ip addr add 192.0.2.7/32 dev lo
      ip -6 addr add 2001:db8::7/128 dev lo nodad
      spiped -d -s '[0.0.0.0]:8080' -t '[127.0.0.1]:80' -k spiped.key --send-proxy ${version}
      # Tarsnap's client; a connection to an address of this machine comes from the same address.
      /usr/bin/spiped -e -s '[127.0.0.1]:8081' -t '[192.0.2.7]:8080' -k spiped.key -p c.pid
      test "$(curl -s http://127.0.0.1:8081/)" = 'you are 192.0.2.7'
      spiped -d -s '[::]:8082' -t '[127.0.0.1]:80' -k spiped.key --send-proxy ${version}
      /usr/bin/spiped -e -s '[127.0.0.1]:8083' -t '[2001:db8::7]:8082' -k spiped.key -p c6.pid
      test "$(curl -s http://127.0.0.1:8083/)" = 'you are 2001:db8::7'
      # Our -e passes its client's address on, and the server accepts headers from that address only.
      spiped -e -s '[0.0.0.0]:8084' -t '[127.0.0.1]:8085' -k spiped.key --send-proxy ${version}
      spiped -d -s '[127.0.0.1]:8085' -t '[127.0.0.1]:80' -k spiped.key --accept-proxy 127.0.0.1 --send-proxy ${version}
      test "$(curl -s --interface 192.0.2.7 http://192.0.2.7:8084/)" = 'you are 192.0.2.7'
      echo all done
    `);
    expect(output).toMatch(/all done\n$/);
  });

  it.each(["send-proxy", "send-proxy-v2"])(
    "is accepted from HAProxy (%s), and from no other address",
    async (option) => {
      const output = await inNamespace(`
      ${startNginx(80)}
      ip addr add 192.0.2.7/32 dev lo
      cat > haproxy.cfg <<END
defaults
  mode tcp
  timeout connect 5s
  timeout client 1h
  timeout server 1h
listen front
  bind 0.0.0.0:8000
  server one 127.0.0.1:8001 source 127.0.0.9 ${option}
END
      haproxy -D -p haproxy.pid -f haproxy.cfg
      spiped -F -d -s '[127.0.0.1]:8001' -t '[127.0.0.1]:80' -k spiped.key --accept-proxy 127.0.0.9 --send-proxy v2 \\
        --log-level info 2> log &
      /usr/bin/spiped -e -s '[127.0.0.1]:8081' -t '[192.0.2.7]:8000' -k spiped.key -p c.pid
      listening 8001
      test "$(curl -s http://127.0.0.1:8081/)" = 'you are 192.0.2.7'
      grep -q 'from 192.0.2.7:' log
      # From other addresses no header is expected, and a header fails as a handshake.
      /usr/bin/spiped -e -s '[127.0.0.1]:8082' -t '[127.0.0.1]:8001' -k spiped.key -p c2.pid
      test "$(curl -s http://127.0.0.1:8082/)" = 'you are 127.0.0.1'
      spiped -e -s '[127.0.0.1]:8083' -t '[127.0.0.1]:8001' -k spiped.key --send-proxy v1
      ! curl -s http://127.0.0.1:8083/
      grep -q 'wrong key' log
      echo all done
    `);
      expect(output).toMatch(/all done\n$/);
    },
  );
});

describeIfInstalled(
  "root",
  "unshare",
  "ip",
  "ss",
  "socat",
  "nginx",
  "haproxy",
  "curl",
  "spiped",
)("two daemons behind HAProxy", () => {
  it("are drained and restarted in turn under load, and no connection fails", {
    timeout: 300_000,
  }, async () => {
    expect(readFileSync("deploy/haproxy/haproxy.cfg", "utf8")).toContain("server two 127.0.0.1:8027");
    const output = await inNamespace(`
      # On failure, the reason is the last output.
      report() {
        status=$?
        test $status != 0 || return
        tail -n 50 log.*
        echo "status $status of: $failed"
        sort failures | uniq -c
      }
      set -E; failed=; trap 'failed=$BASH_COMMAND' ERR; trap report EXIT
      trap 'failed="$BASH_COMMAND, which took too long"; exit 1' TERM
      (sleep 280; kill $$) &
      touch failures
      ${startNginx(25)}
      mount -t tmpfs none /run
      haproxy -c -f ${resolve("deploy/haproxy/haproxy.cfg")}
      haproxy -D -p haproxy.pid -f ${resolve("deploy/haproxy/haproxy.cfg")}
      daemon() {
        spiped -d -s "[127.0.0.1]:$1" -t '[127.0.0.1]:25' -k spiped.key --accept-proxy 127.0.0.1 --send-proxy v2 \\
          -o 60 -p $1.pid --log-level info 2>> log.$1
      }
      daemon 8026; daemon 8027; listening 8025
      /usr/bin/spiped -e -s '[127.0.0.1]:2525' -t '[127.0.0.1]:8025' -k spiped.key -o 60 -p c.pid

      # Without -t, socat waits only half a second for the answer.
      ask() { echo "$1" | socat -t 60 - /run/haproxy.sock; }
      state() { test -z "$(ask "set server spiped/$1 state $2")"; }
      up() { ask 'show servers state spiped' | awk -v name=$1 '$4 == name && $6 == 2 { up = 1 } END { exit !up }'; }
      # Prints the number of connections that HAProxy has to a server, established or not. HAProxy counts them while none
      # of its threads does anything else.
      connections() { ask 'show sess' | grep -c "be=spiped srv=$1 " || true; }
      # Sends a request on a connection and waits for the answer.
      request() {
        printf 'GET / HTTP/1.1\\r\\nHost: service\\r\\n\\r\\n' >&$1
        while read -r line <&$1; do test "$line" != 'you are 127.0.0.1' || return 0; done
        return 1
      }

      until up one && up two; do sleep 0.05; done
      state two drain
      exec {held}<> /dev/tcp/127.0.0.1/2525
      request $held
      state two ready
      client() {
        while ! test -e stop; do
          curl -sS --max-time 60 http://127.0.0.1:2525/ >> answers.$1 2>> failures || true
        done
      }
      # Waits until the clients have got another 20 answers.
      count() { cat answers.* | wc -l; }
      more() {
        before=$(count)
        until test $(count) -ge $((before + 20)) || test -s failures; do sleep 0.02; done
        test ! -s failures
      }
      touch answers.1
      clients=
      for i in 1 2 3 4; do client $i {held}>&- & clients="$clients $!"; done
      for round in 1 2 3; do
        for server in one:8026 two:8027; do
          port=\${server#*:}
          server=\${server%:*}
          more
          old=$(cat $port.pid)
          state $server drain
          # This connection is to the other server, the next one to be restarted.
          exec {next}<> /dev/tcp/127.0.0.1/2525
          request $next
          # A connection that HAProxy has just begun must be established before the listener closes.
          until test $(connections $server) = 1; do sleep 0.02; done
          kill $old
          while ss -ltnH "sport = :$port" | grep -q .; do sleep 0.02; done
          # The daemon serves the connection that is still open until it closes.
          request $held
          exec {held}>&-
          held=$next
          while kill -0 $old 2> /dev/null; do sleep 0.01; done
          # HAProxy would consider the daemon up until its next checks.
          while up $server; do sleep 0.05; done
          daemon $port {held}>&-
          until up $server; do sleep 0.05; done
          state $server ready
        done
      done
      more
      touch stop; wait $clients
      test ! -s failures
      cat answers.* | sort | uniq -c
      echo all done
    `);
    expect(output).toMatch(/all done\n$/);
    const [, answers] = /(\d+) you are 127\.0\.0\.1\n/.exec(output)!;
    expect(Number(answers)).toBeGreaterThan(100);
    console.log(`${answers} connections during six restarts, none failed`);
  });
});
