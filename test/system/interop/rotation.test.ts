/** The README's walk-throughs for many keys and many tunnels, run verbatim with Tarsnap's clients. */
import { expect, it } from "vitest";
import { inNamespace, recipe } from "../../support/recipes.ts";
import { describeIfInstalled } from "../../support/requirements.ts";

describeIfInstalled(
  "root",
  "unshare",
  "ip",
  "ss",
  "socat",
  "curl",
  "spiped",
  "spipe",
)("the README", () => {
  it("changes a key under a steady load from Tarsnap's clients, and no connection fails", {
    timeout: 180_000,
  }, async () => {
    const output = await inNamespace(`
      socat TCP-LISTEN:25,fork,reuseaddr,backlog=100 EXEC:cat &
      ${recipe("keyring")}
      listening 25
      cp keys/alice.key current; cp current old
      client() {
        while ! test -e stop; do
          # The client's key file is replaced atomically, between two connections.
          test "$(echo hello $1 | /usr/bin/spipe -t '[127.0.0.1]:8025' -k current)" = "hello $1" && echo $1 >> served || echo failed $1 >> failures
        done
      }
      # Tarsnap's spiped -e holds one connection throughout.
      /usr/bin/spiped -e -s '[127.0.0.1]:2525' -t '[127.0.0.1]:8025' -k keys/bob.key -p bob.pid
      (until test -e stop; do sleep 0.05; done; echo end) | socat -t 60 - TCP:127.0.0.1:2525 > held & held=$!
      # And one connection of alice's is open with the old key.
      mkfifo input; sleep 1000 > input &
      (/usr/bin/spipe -t '[127.0.0.1]:8025' -k old < input > output || touch ended) &
      # Waits until the clients have been served another 30 times.
      more() { before=$(wc -l < served); until test $(wc -l < served) -ge $((before + 30)) || test -e failures; do sleep 0.02; done; }
      touch served
      clients=""
      for i in 1 2 3; do client $i & clients="$clients $!"; done
      more
      ${recipe("rotate-add")}
      more
      cp keys/alice.2*.key new; mv new current
      more
      ${recipe("rotate-remove")}
      more
      touch stop; wait $clients
      timeout 60 sh -c 'until test -e ended; do sleep 0.05; done'
      test ! -e failures || { cat failures; exit 1; }
      test "$( (echo hello; sleep 1) | /usr/bin/spipe -t '[127.0.0.1]:8025' -k old || true)" = ""
      wait $held; test "$(cat held)" = end
      echo "served $(wc -l < served)"
      echo all done
    `);
    expect(output).toMatch(/all done\n$/);
    const [, served] = /served (\d+)\n/.exec(output)!;
    expect(Number(served)).toBeGreaterThan(50);
    console.log(`${served} connections while the key was changed, none failed`);
  });

  it("runs two tunnels from a file", async () => {
    const output = await inNamespace(`
      mkdir keys; cp spiped.key keys/alice.key; cp spiped.key redis.key
      cat > spiped.toml <<'END'
${recipe("config")}
END
      sed -i 's/cache1.example.org/127.0.0.1/; s/cache2.example.org/127.0.0.1/' spiped.toml
      socat TCP-LISTEN:25,fork,reuseaddr EXEC:cat &
      socat TCP-LISTEN:6379,fork,reuseaddr EXEC:cat &
      /usr/bin/spiped -d -s '[127.0.0.1]:16379' -t '[127.0.0.1]:6379' -k redis.key -p redis.pid
      ${recipe("config-run")}
      test "$(echo mail | /usr/bin/spipe -t '[127.0.0.1]:8025' -k spiped.key)" = mail
      test "$(echo redis | socat -t 60 - TCP:127.0.0.1:6380)" = redis
      kill -HUP $(cat spiped.toml.pid)
      kill $(cat spiped.toml.pid)
      echo all done
    `);
    expect(output).toMatch(/all done\n$/);
  });

  it("shows metrics", async () => {
    const [daemon, ...questions] = recipe("metrics").trim().split("\n");
    const output = await inNamespace(`
      ${daemon}
      ${questions.join("\n")}
      echo all done
    `);
    expect(output).toMatch(/^ready$/m);
    expect(output).toMatch(/^# TYPE spiped_connections_total counter$/m);
  });
});
