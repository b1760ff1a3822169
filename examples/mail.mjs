/**
 * Sends mail through an encrypted pipe with nodemailer, without a local daemon.
 *
 *     node examples/mail.mjs server.example.org:8025 spiped.key you@example.org
 *
 * The server runs `spiped -d -s '[0.0.0.0]:8025' -t '[127.0.0.1]:25' -k spiped.key`.
 */
import { createTransport } from "nodemailer";
import { connect, loadKey } from "spiped";

const [target, keyFile, recipient] = process.argv.slice(2);
const [, host, port] = /^(.+):(\d+)$/.exec(target ?? "") ?? [];
if (port === undefined) {
  console.error("usage: node examples/mail.mjs SERVER:PORT KEYFILE RECIPIENT");
  process.exit(1);
}
const key = await loadKey(keyFile);

const transport = createTransport({
  // The pipe already encrypts; STARTTLS inside it would check a certificate against the host name below.
  ignoreTLS: true,
  host,
  getSocket(_options, callback) {
    connect({ host, port: Number(port), key, allowHalfOpen: false }).then(
      (connection) => callback(null, { connection }),
      callback,
    );
  },
});
const sent = await transport.sendMail({
  from: "me@example.net",
  to: recipient,
  subject: "Through the pipe",
  text: "No daemon on this side.\n",
});
console.log(sent.response);
