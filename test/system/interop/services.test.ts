/** The README's recipes, run verbatim in front of the real services. */
import { resolve } from "node:path";
import { expect, it } from "vitest";
import { inNamespace, recipe } from "../../support/recipes.ts";
import { describeIfInstalled } from "../../support/requirements.ts";

describeIfInstalled(
  "root",
  "unshare",
  "ip",
  "ss",
  "sshd",
  "ssh",
  "scp",
  "ssh-keygen",
)("sshd", () => {
  it("is reached through spipe: a command, 64 MiB, 20 sessions at once", { timeout: 120_000 }, async () => {
    const output = await inNamespace(`
      mkdir -p /run/sshd .ssh
      ssh-keygen -q -t ed25519 -N '' -f host_key
      ssh-keygen -q -t ed25519 -N '' -f .ssh/id_ed25519
      cp .ssh/id_ed25519.pub authorized_keys
      cp spiped.key .ssh/spiped.key
      cat > sshd_config <<END
ListenAddress 127.0.0.1:22
HostKey $PWD/host_key
AuthorizedKeysFile $PWD/authorized_keys
PidFile $PWD/sshd.pid
StrictModes no
UsePAM no
PermitRootLogin yes
MaxStartups 100
Subsystem sftp internal-sftp
END
      /usr/sbin/sshd -f $PWD/sshd_config -E sshd.log
      listening 22
      ${recipe("ssh-server")}
      # ssh finds ~ in the user database, not in HOME.
      sed "s,~,$PWD," > config <<'END'
${recipe("ssh-config")}
END
      cat >> config <<END
    User root
    IdentityFile $PWD/.ssh/id_ed25519
    UserKnownHostsFile $PWD/known_hosts
    StrictHostKeyChecking accept-new
END
      test "$(ssh -F config 127.0.0.1 'echo hello from $0 && cat /proc/self/comm')" = "hello from bash
cat"
      test "$(echo data | ssh -F config 127.0.0.1 'cat; exit 7' || echo $?)" = "data
7"
      head -c 67108864 /dev/urandom > big
      scp -q -F config big 127.0.0.1:$PWD/copy
      cmp big copy
      scp -q -F config 127.0.0.1:$PWD/copy back
      cmp big back
      for i in $(seq 20); do ssh -F config 127.0.0.1 "sleep 0.2; seq $i" > out.$i & done
      wait
      for i in $(seq 20); do test "$(cat out.$i)" = "$(seq $i)"; done
      echo all done
    `);
    expect(output).toMatch(/all done\n$/);
  });
});

/** Shell code that starts a postfix that delivers mail for `you@example.org` to mail/box. */
const START_POSTFIX = `mkdir -p etc queue data mail; chmod 755 . ; chown postfix data; chown nobody mail
      cat > etc/main.cf <<END
compatibility_level = 3.6
queue_directory = $PWD/queue
data_directory = $PWD/data
maillog_file = $PWD/mail.log
maillog_file_prefixes = $PWD
myhostname = mail.example.org
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
alias_maps =
virtual_mailbox_domains = example.org
virtual_mailbox_base = $PWD/mail
virtual_mailbox_maps = static:box
virtual_uid_maps = static:$(id -u nobody)
virtual_gid_maps = static:$(id -g nobody)
END
      cat > etc/master.cf <<END
smtp      inet  n  -  n  -  -    smtpd
cleanup   unix  n  -  n  -  0    cleanup
qmgr      unix  n  -  n  300 1   qmgr
rewrite   unix  -  -  n  -  -    trivial-rewrite
bounce    unix  -  -  n  -  0    bounce
defer     unix  -  -  n  -  0    bounce
trace     unix  -  -  n  -  0    bounce
proxymap  unix  -  -  n  -  -    proxymap
error     unix  -  -  n  -  -    error
retry     unix  -  -  n  -  -    error
virtual   unix  -  n  n  -  -    virtual
anvil     unix  -  -  n  -  1    anvil
postlog   unix-dgram n  -  n  -  1  postlogd
END
      postfix -c $PWD/etc start || { cat mail.log; exit 1; }
      listening 25
`;
/** Shell code that waits for the mail and writes its body to `delivered`. */
const DELIVERED = `
      until test -s mail/box; do sleep 0.05; done
      sleep 0.2
      sed '1,/^$/d' mail/box | sed '/^$/d' > delivered
`;

describeIfInstalled(
  "root",
  "unshare",
  "ip",
  "ss",
  "postfix",
  "swaks",
)("postfix", () => {
  it("receives mail through an -e/-d pair, byte for byte", { timeout: 60_000 }, async () => {
    const output = await inNamespace(`
      ${START_POSTFIX}
      ${recipe("smtp-server")}
      ${recipe("smtp-client")}
      { for i in $(seq 2000); do echo "line $i: äöü and a lone . below"; echo .; done; } > body
      swaks --server 127.0.0.1:2525 --from me@example.net --to you@example.org --body "$(cat body)" > swaks.log || { cat swaks.log; exit 1; }
      ${DELIVERED}
      cmp body delivered
      postfix -c $PWD/etc stop
      echo all done
    `);
    expect(output).toMatch(/all done\n$/);
  });

  it("receives mail from nodemailer through the library and Tarsnap's daemon", {
    timeout: 60_000,
  }, async () => {
    const output = await inNamespace(
      `
      ${START_POSTFIX}
      ${recipe("smtp-server")}
      listening 8025
      node ${resolve("examples/mail.mjs")} 127.0.0.1:8025 spiped.key you@example.org
      ${DELIVERED}
      grep -q 'Subject: Through the pipe' mail/box
      test "$(cat delivered)" = 'No daemon on this side.'
      postfix -c $PWD/etc stop
      echo all done
    `,
      "c",
    );
    expect(output).toMatch(/all done\n$/);
  });
});

describeIfInstalled(
  "root",
  "unshare",
  "ip",
  "ss",
  "redis-server",
  "redis-cli",
  "redis-benchmark",
)("redis", () => {
  it("is reached over TCP and over UNIX sockets", { timeout: 60_000 }, async () => {
    const output = await inNamespace(`
      redis-server --port 6379 --bind 127.0.0.1 --unixsocket $PWD/redis.sock --daemonize yes --save '' --dir $PWD > redis.log
      listening 6379
      ${recipe("redis-server")}
      ${recipe("redis-client")}
      test "$(redis-cli -p 6380 set greeting hello)" = OK
      test "$(redis-cli -p 6380 get greeting)" = hello
      redis-benchmark -p 6380 -P 16 -n 100000 -t set,get -q

      spiped -d -s $PWD/middle.sock -t $PWD/redis.sock -k spiped.key
      spiped -e -s $PWD/client.sock -t $PWD/middle.sock -k spiped.key
      test "$(redis-cli -s client.sock get greeting)" = hello
      redis-benchmark -s client.sock -P 16 -n 100000 -t set,get -q
      kill $(cat middle.sock.pid) $(cat client.sock.pid)
      echo all done
    `);
    expect(output).toMatch(/all done\n$/);
  });

  it("answers ioredis through the library and Tarsnap's daemon, also after a lost connection", {
    timeout: 60_000,
  }, async () => {
    const output = await inNamespace(
      `
      redis-server --port 6379 --bind 127.0.0.1 --daemonize yes --save '' --dir $PWD > redis.log
      listening 6379
      ${recipe("redis-server")}
      listening 16379
      test "$(node ${resolve("examples/redis.mjs")} 127.0.0.1:16379 spiped.key)" = 'hello through the pipe'
      node ${resolve("test/support/redis-reconnects.mjs")} 127.0.0.1 16379 spiped.key
      echo all done
    `,
      "c",
    );
    expect(output).toMatch(/all done\n$/);
  });
});
