;; The parts of the packet work that move bytes: a whole batch in one call. The ciphers and hashes are OpenSSL's.
;;
;; Memory, in the order of the data's way (64 packets a batch):
;;
;;   COUNTERS   64 x 65 x 16   counter blocks, BE64(packet number) || BE64(block); the block part never changes
;;   KEYSTREAM  64 x 65 x 16   AES-256 of the counter blocks
;;   INPUT      64 x 1060      data to seal (64 x 1024 of it), or packets to open
;;   SLOTS      64 x 1104      what the inner hash of HMAC reads: key ^ ipad (64) | ciphertext (1028) | BE64(number) (8)
;;   OUTPUT     64 x 1060      packets, or opened data; and 16 bytes to spare
;;   RECEIVED   64 x 32        tags of the packets to open
;;   EXPECTED   64 x 32        tags as they should be
;;   OUTER      64 + 32        what the outer hash of HMAC reads: key ^ opad | inner hash
;;   IPAD       64             key ^ ipad, copied into each slot of a batch
(module
  (memory (export "memory") 6 6)
  (global $COUNTERS (export "COUNTERS") i32 (i32.const 0))
  (global $KEYSTREAM (export "KEYSTREAM") i32 (i32.const 66560))
  (global $INPUT (export "INPUT") i32 (i32.const 133120))
  (global $SLOTS (export "SLOTS") i32 (i32.const 200960))
  (global $OUTPUT (export "OUTPUT") i32 (i32.const 271616))
  (global $RECEIVED (export "RECEIVED") i32 (i32.const 339472))
  (global $EXPECTED (export "EXPECTED") i32 (i32.const 341520))
  (global $OUTER (export "OUTER") i32 (i32.const 343568))
  (global $IPAD (export "IPAD") i32 (i32.const 343664))

  (func $swap (param $x i32) (result i32)
    (i32.or
      (i32.and (i32.rotl (local.get $x) (i32.const 8)) (i32.const 0x00ff00ff))
      (i32.and (i32.rotr (local.get $x) (i32.const 8)) (i32.const 0xff00ff00))))

  ;; Writes packet numbers $high:$low and following into the counter blocks and slots of $count packets, and the
  ;; padded key into the slots.
  (func (export "number") (param $count i32) (param $high i32) (param $low i32)
    (local $counter i32) (local $end i32) (local $slot i32) (local $number i64)
    (local $a v128) (local $b v128) (local $c v128) (local $d v128)
    (local.set $a (v128.load (global.get $IPAD)))
    (local.set $b (v128.load offset=16 (global.get $IPAD)))
    (local.set $c (v128.load offset=32 (global.get $IPAD)))
    (local.set $d (v128.load offset=48 (global.get $IPAD)))
    (local.set $counter (global.get $COUNTERS))
    (local.set $slot (global.get $SLOTS))
    (loop $packet
      (local.set $number
        (i64.or
          (i64.extend_i32_u (call $swap (local.get $high)))
          (i64.shl (i64.extend_i32_u (call $swap (local.get $low))) (i64.const 32))))
      (v128.store (local.get $slot) (local.get $a))
      (v128.store offset=16 (local.get $slot) (local.get $b))
      (v128.store offset=32 (local.get $slot) (local.get $c))
      (v128.store offset=48 (local.get $slot) (local.get $d))
      (i64.store offset=1092 (local.get $slot) (local.get $number))
      (local.set $slot (i32.add (local.get $slot) (i32.const 1104)))
      (local.set $end (i32.add (local.get $counter) (i32.const 1040)))
      (loop $block
        (i64.store (local.get $counter) (local.get $number))
        (local.set $counter (i32.add (local.get $counter) (i32.const 16)))
        (br_if $block (i32.lt_u (local.get $counter) (local.get $end))))
      (local.set $low (i32.add (local.get $low) (i32.const 1)))
      (local.set $high (i32.add (local.get $high) (i32.eqz (local.get $low))))
      (local.set $count (i32.sub (local.get $count) (i32.const 1)))
      (br_if $packet (local.get $count))))

  ;; Encrypts $length bytes of INPUT, which is zero from there to the next multiple of 1024, into the slots and OUTPUT.
  (func (export "encrypt") (param $length i32)
    (local $input i32) (local $end i32) (local $key i32) (local $slot i32) (local $output i32) (local $x v128) (local $word i32)
    (local.set $input (global.get $INPUT))
    (local.set $key (global.get $KEYSTREAM))
    (local.set $slot (global.get $SLOTS))
    (local.set $output (global.get $OUTPUT))
    (loop $packet
      (local.set $end (i32.add (local.get $input) (i32.const 1024)))
      (loop $block
        (local.set $x (v128.xor (v128.load (local.get $input)) (v128.load (local.get $key))))
        (v128.store offset=64 (local.get $slot) (local.get $x))
        (v128.store (local.get $output) (local.get $x))
        (local.set $x (v128.xor (v128.load offset=16 (local.get $input)) (v128.load offset=16 (local.get $key))))
        (v128.store offset=80 (local.get $slot) (local.get $x))
        (v128.store offset=16 (local.get $output) (local.get $x))
        (local.set $x (v128.xor (v128.load offset=32 (local.get $input)) (v128.load offset=32 (local.get $key))))
        (v128.store offset=96 (local.get $slot) (local.get $x))
        (v128.store offset=32 (local.get $output) (local.get $x))
        (local.set $x (v128.xor (v128.load offset=48 (local.get $input)) (v128.load offset=48 (local.get $key))))
        (v128.store offset=112 (local.get $slot) (local.get $x))
        (v128.store offset=48 (local.get $output) (local.get $x))
        (local.set $input (i32.add (local.get $input) (i32.const 64)))
        (local.set $key (i32.add (local.get $key) (i32.const 64)))
        (local.set $slot (i32.add (local.get $slot) (i32.const 64)))
        (local.set $output (i32.add (local.get $output) (i32.const 64)))
        (br_if $block (i32.lt_u (local.get $input) (local.get $end))))
      (local.set $word
        (i32.xor
          (call $swap
            (select (i32.const 1024) (local.get $length) (i32.gt_u (local.get $length) (i32.const 1024))))
          (i32.load (local.get $key))))
      (i32.store offset=64 (local.get $slot) (local.get $word))
      (i32.store (local.get $output) (local.get $word))
      (local.set $key (i32.add (local.get $key) (i32.const 16)))
      (local.set $slot (i32.add (local.get $slot) (i32.const 80)))
      (local.set $output (i32.add (local.get $output) (i32.const 36)))
      (local.set $length (i32.sub (local.get $length) (i32.const 1024)))
      (br_if $packet (i32.gt_s (local.get $length) (i32.const 0)))))

  ;; Lays $count packets of INPUT out for verification: ciphertexts into the slots, tags into RECEIVED.
  (func (export "layOut") (param $count i32)
    (local $input i32) (local $slot i32) (local $tag i32)
    (local.set $input (global.get $INPUT))
    (local.set $slot (global.get $SLOTS))
    (local.set $tag (global.get $RECEIVED))
    (loop $packet
      (memory.copy (i32.add (local.get $slot) (i32.const 64)) (local.get $input) (i32.const 1028))
      (v128.store (local.get $tag) (v128.load offset=1028 align=4 (local.get $input)))
      (v128.store offset=16 (local.get $tag) (v128.load offset=1044 align=4 (local.get $input)))
      (local.set $input (i32.add (local.get $input) (i32.const 1060)))
      (local.set $slot (i32.add (local.get $slot) (i32.const 1104)))
      (local.set $tag (i32.add (local.get $tag) (i32.const 32)))
      (local.set $count (i32.sub (local.get $count) (i32.const 1)))
      (br_if $packet (local.get $count))))

  ;; How many packets the last `decrypt` took before it met an illegal length.
  (global $decrypted (export "decrypted") (mut i32) (i32.const 0))

  ;; Decrypts up to $count verified packets of INPUT; their data goes to OUTPUT without gaps. Stops at a length that is
  ;; 0 or above 1024. Returns the number of bytes of data.
  (func (export "decrypt") (param $count i32) (result i32)
    (local $input i32) (local $end i32) (local $key i32) (local $output i32) (local $next i32) (local $length i32)
    (local.set $input (global.get $INPUT))
    (local.set $key (global.get $KEYSTREAM))
    (local.set $next (global.get $OUTPUT))
    (global.set $decrypted (i32.const 0))
    (block $refused
      (loop $packet
        (local.set $length
          (call $swap
            (i32.xor (i32.load offset=1024 (local.get $input)) (i32.load offset=1024 (local.get $key)))))
        (br_if $refused (i32.gt_u (i32.sub (local.get $length) (i32.const 1)) (i32.const 1023)))
        (local.set $output (local.get $next))
        (local.set $next (i32.add (local.get $next) (local.get $length)))
        (local.set $end (i32.add (local.get $input) (i32.const 1024)))
        (loop $block
          (v128.store align=1 (local.get $output)
            (v128.xor (v128.load align=4 (local.get $input)) (v128.load (local.get $key))))
          (v128.store offset=16 align=1 (local.get $output)
            (v128.xor (v128.load offset=16 align=4 (local.get $input)) (v128.load offset=16 (local.get $key))))
          (v128.store offset=32 align=1 (local.get $output)
            (v128.xor (v128.load offset=32 align=4 (local.get $input)) (v128.load offset=32 (local.get $key))))
          (v128.store offset=48 align=1 (local.get $output)
            (v128.xor (v128.load offset=48 align=4 (local.get $input)) (v128.load offset=48 (local.get $key))))
          (local.set $input (i32.add (local.get $input) (i32.const 64)))
          (local.set $key (i32.add (local.get $key) (i32.const 64)))
          (local.set $output (i32.add (local.get $output) (i32.const 64)))
          (br_if $block (i32.lt_u (local.get $input) (local.get $end))))
        (local.set $input (i32.add (local.get $input) (i32.const 36)))
        (local.set $key (i32.add (local.get $key) (i32.const 16)))
        (global.set $decrypted (i32.add (global.get $decrypted) (i32.const 1)))
        (local.set $count (i32.sub (local.get $count) (i32.const 1)))
        (br_if $packet (local.get $count))))
    (i32.sub (local.get $next) (global.get $OUTPUT)))

  ;; Overwrites the keystream and everything that holds a key.
  (func (export "wipe")
    (memory.fill (global.get $KEYSTREAM) (i32.const 0) (i32.const 66560))
    (memory.fill (global.get $SLOTS) (i32.const 0) (i32.const 70656))
    (memory.fill (global.get $OUTER) (i32.const 0) (i32.const 160))))
