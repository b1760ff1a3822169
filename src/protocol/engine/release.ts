/** Frees the memory of keystreams. */

/** Frees a buffer immediately, which detaches it. */
export type Release = (buffer: ArrayBuffer) => void;

/**
 * Returns a function that frees buffers. If they were left to the garbage collector, the keystreams of hundreds of
 * batches would accumulate and exceed every CPU cache (0.3 us/packet).
 *
 * It is set up at its first call: on Node 20 that takes 2 ms, and short messages do not need it.
 */
export function makeRelease(): Release {
  let release: Release | undefined;
  return (buffer) => {
    release ??= setUpRelease();
    release(buffer);
  };
}

function setUpRelease(): Release {
  const { transfer } = ArrayBuffer.prototype as {
    transfer?: (this: ArrayBuffer, length: number) => ArrayBuffer;
  };
  const release: Release =
    transfer === undefined ? transferToClosedPort() : (buffer) => void transfer.call(buffer, 0);
  // glibc returns memory to the OS whenever 128 KiB at the top of the heap are free, as happens with every batch, and
  // allocating it again costs page faults (0.1 us/packet). Freeing a larger block raises that threshold to twice the
  // block's size. The block is never touched, so it uses no physical memory.
  release(new ArrayBuffer(4 << 20));
  return release;
}

/** For Node 20, which lacks `ArrayBuffer.prototype.transfer`: a message to a closed port is freed with its buffers. */
function transferToClosedPort(): Release {
  const { port1, port2 } = new MessageChannel();
  port1.close();
  port2.close();
  return (buffer) => port1.postMessage(undefined, [buffer]);
}
